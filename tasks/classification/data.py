"""Data sets by name, each a LightningDataModule that says how many channels and classes its images have."""

from typing import ClassVar

import lightning
import torch
from kornia.augmentation import RandomCrop
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
)

Batch = tuple[Tensor, Tensor]


class Images(lightning.LightningDataModule):
    """Images in memory: ``train_set`` and ``test_set`` of (n, channels, height, width) and (n,) labels.

    Args:
        seed: of the order of the training images; equal seeds give equal batches, whatever the model.
        batch: images a step.
    """

    channels: ClassVar[int]
    classes: ClassVar[int]
    train_set: TensorDataset
    test_set: TensorDataset

    def __init__(self, seed: int = 0, batch: int = 64) -> None:
        super().__init__()
        self.seed, self.batch = seed, batch

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        order = RandomSampler(self.train_set, generator=torch.Generator().manual_seed(self.seed))
        return _loader(self.train_set, BatchSampler(order, self.batch, drop_last=True))

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return _loader(self.test_set, BatchSampler(SequentialSampler(self.test_set), 512, drop_last=False))


def _loader(dataset: TensorDataset, batches: Sampler[list[int]]) -> DataLoader[tuple[Tensor, ...]]:
    """One indexing operation a batch: the sampler yields lists of indices, and nothing is collated."""
    return DataLoader(dataset, sampler=batches, batch_size=None)


class Digits(Images):
    """Handwritten digits (UCI, embedded in scikit-learn): 1,797 images of (1, 8, 8), standardised.

    The split of 1,297 for training and 500 for the test is stratified and always the same. Training images
    are shifted by up to one pixel each way.
    """

    channels = 1
    classes = 10

    def __init__(self, seed: int = 0, batch: int = 64) -> None:
        super().__init__(seed, batch)
        images, labels = load_digits(return_X_y=True)
        split = train_test_split(images / 16, labels, test_size=500, stratify=labels, random_state=0)
        train, test, train_labels, test_labels = (torch.from_numpy(array) for array in split)
        std, mean = torch.std_mean(train)
        self.train_set = TensorDataset(((train - mean) / std).float().view(-1, 1, 8, 8), train_labels)
        self.test_set = TensorDataset(((test - mean) / std).float().view(-1, 1, 8, 8), test_labels)
        self.augment = RandomCrop((8, 8), padding=1, padding_mode="replicate")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        training = self.trainer is not None and self.trainer.training
        return (self.augment(images) if training else images), labels


DATA: dict[str, type[Images]] = {"digits": Digits}
"""Data sets by name."""
