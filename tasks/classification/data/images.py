"""What every data set is: a LightningDataModule that augments and standardises on the device."""

from abc import ABC, abstractmethod
from pathlib import Path

import lightning
import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lincon import LinconError
from lincon.counter import key
from lincon.tasks.classification.data.sets import Batch, Split, loader, stratified

__all__ = ["Batch", "Images", "crop_and_flip", "floats"]


class Images(lightning.LightningDataModule, ABC):
    """Labelled images in two parts, ``train_set`` and ``test_set``; batches of them are indexed by lists.

    Items are as in the source: uint8, or float in [0, 1]. ``augment`` works on floats in [0, 1], ``mean`` and
    ``std`` (channels,) standardise them.

    Args:
        seed: of the order of the training images; equal seeds give equal batches, whatever the model.
        batch: images a step.
        root: the folder where the data lie, where they are not embedded.
        limit: training images used, a fixed choice of all classes; None for all. The test set is always whole.

    Raises:
        LinconError: a limit that is below 1 or above what there is; missing or damaged files, by name.
    """

    name: str
    channels: int
    classes: int
    size: int  # height and width
    mean: Tensor
    std: Tensor
    evaluation_batch = 512
    first: int = 0
    """Epochs that were trained before those of the trainer."""

    def __init__(self, seed: int = 0, batch: int = 64, root: Path | None = None, limit: int | None = None) -> None:
        super().__init__()
        self.seed, self.batch = seed, batch
        train_set, self.test_set = self._read(root)
        self.train_set = train_set if limit is None else _limited(train_set, limit)
        self.augment = self._augmentation()

    @abstractmethod
    def _read(self, root: Path | None) -> tuple[Split, Split]:
        """Training and test part, whole."""

    @abstractmethod
    def _augmentation(self) -> nn.Module:
        """A kornia module, (n, channels, height, width) -> (n, channels, size, size), floats in [0, 1]."""

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by the seed and the current epoch alone; a last batch that is not full is left out.

        Let the Trainer reload it every epoch: then a training that is resumed sees the order it would have seen.
        """
        epoch = self.first + (self.trainer.current_epoch if self.trainer else 0)
        generator = torch.Generator().manual_seed(key(self.seed, epoch))
        order = torch.randperm(len(self.train_set), generator=generator)
        full = len(order) // self.batch * self.batch
        return loader(self.train_set, order[: full or None], self.batch)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader(train=False)

    def evaluation_loader(self, train: bool) -> DataLoader[Batch]:
        """All images of the training or the test part, in order and without augmentation; for `prepare`."""
        split = self.train_set if train else self.test_set
        return loader(split, torch.arange(len(split)), self.evaluation_batch)

    def prepare(self, images: Tensor) -> Tensor:
        """What a model sees in the test: ``images`` (n, channels, height, width) as floats, standardised."""
        return self._standardise(floats(images))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = floats(batch[0]), batch[1]
        training = self.trainer is not None and self.trainer.training
        return self._standardise(self.augment(images) if training else images), labels

    def _standardise(self, images: Tensor) -> Tensor:
        mean, std = (of.to(images.device).view(-1, 1, 1) for of in (self.mean, self.std))
        return (images - mean) / std


def floats(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; floats as they are."""
    return images if images.is_floating_point() else images.float() / 255


def crop_and_flip(size: int, padding: int) -> nn.Module:
    """The usual augmentation: shifts by up to ``padding`` pixels, filled with black, and mirror images."""
    return nn.Sequential(RandomCrop((size, size), padding=padding), RandomHorizontalFlip())


def _limited(split: Split, limit: int) -> Split:
    if not 1 <= limit <= len(split):
        raise LinconError(f"{limit} training images asked for: choose from 1 to {len(split)}, all that there are.")
    return split.subset(stratified(split.labels, limit))
