"""Handwritten digits, the data set that needs no file."""

from pathlib import Path

import torch
from einops import rearrange
from kornia.augmentation import RandomCrop
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from lincon.tasks.classification.data.images import Images
from lincon.tasks.classification.data.sets import InMemory, Labelled


class Digits(Images):
    """Handwritten digits (UCI, embedded in scikit-learn): 1,797 images of (1, 8, 8).

    Values are floats in [0, 1]. The split of 1,297 for training and 500 for the test is stratified
    and always the same. Training images are shifted by up to one pixel each way. ``mean`` and
    ``std`` are those of all 1,297; ``root`` is not used.
    """

    name = "digits"
    channels = 1
    classes = 10
    size = 8

    def _read(self, root: Path | None) -> tuple[Labelled, Labelled]:
        images, labels = load_digits(return_X_y=True)
        split = train_test_split(
            images / 16, labels, test_size=500, stratify=labels, random_state=0
        )
        train, test, train_labels, test_labels = (torch.from_numpy(array) for array in split)
        self.std, self.mean = (number.float().view(1) for number in torch.std_mean(train))
        train, test = (
            rearrange(pixels.float(), "n (height width) -> n 1 height width", height=8)
            for pixels in (train, test)
        )
        return InMemory(train, train_labels), InMemory(test, test_labels)

    def _augmentation(self) -> nn.Module:
        augmentation: nn.Module = RandomCrop((8, 8), padding=1, padding_mode="replicate")
        return augmentation
