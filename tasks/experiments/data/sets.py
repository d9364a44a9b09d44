"""What every data set is: a LightningDataModule of two parts, whose order of training is a matter of seed and epoch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lincon import LinconError
from lincon.counter import key


class Split(Dataset[Any], ABC):
    """One part of a data set: ``split[indices]`` is the batch of those items."""

    workers: int = 0  # processes that load

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: list[int]) -> Any: ...

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """The same kind of split with the items at ``indices`` alone."""


class Data(lightning.LightningDataModule, ABC):
    """Items in two parts, ``train_set`` and ``test_set``.

    Args:
        seed: of the order of the training items; equal seeds give equal batches, whatever the model.
        batch: items a step.
        root: the folder where the data lie, where they are not embedded.
        limit: training items used, a fixed choice; None for all. The test set is always whole.

    Raises:
        LinconError: a limit that is below 1 or above what there is; missing or damaged files, by name.
    """

    name: str
    evaluation_batch = 512
    first_epoch: int = 0
    """Epochs that were trained before those of the trainer."""
    note: str = ""
    """What must be known of the data to read a table, such as how they were split."""

    def __init__(
        self, seed: int = 0, batch: int = 64, root: Path | None = None, limit: int | None = None
    ) -> None:
        super().__init__()
        self.seed, self.batch = seed, batch
        train_set, self.test_set = self._read(root)
        self.train_set = train_set if limit is None else self._limited(train_set, limit)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """What an architecture must know of the items: its positional arguments."""

    @abstractmethod
    def _read(self, root: Path | None) -> tuple[Any, Any]:
        """Training and test part, whole."""

    @abstractmethod
    def prepared(self, batch: Any, training: bool) -> Any:
        """A batch as the model is given it, on the model's device; augmented if ``training``."""

    def _chosen(self, split: Any, limit: int) -> Tensor:
        """Indices of a fixed choice of ``limit`` items."""
        return (
            torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:limit]
            .sort()
            .values
        )

    def _limited(self, split: Any, limit: int) -> Any:
        if not 1 <= limit <= len(split):
            raise LinconError(
                f"{limit} training images asked for: choose from 1 to {len(split)}, all that there are."
            )
        return split.subset(self._chosen(split, limit))

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by the seed and the current epoch alone; a last batch that is not full is left out.

        Processes that train together share every batch, so that their steps are those of one. Let the Trainer reload
        it every epoch: then a training that is resumed sees the order it would have seen.
        """
        epoch = self.first_epoch + (self.trainer.current_epoch if self.trainer else 0)
        generator = torch.Generator().manual_seed(key(self.seed, epoch))
        order = torch.randperm(len(self.train_set), generator=generator)
        full = len(order) // self.batch * self.batch
        batches = order[: full or None].split(self.batch)
        rank, world = self._place
        if world > 1 and any(len(batch) % world for batch in batches):
            raise LinconError(
                f"{len(batches[0])} items a step cannot be shared by {world} processes: see --batch."
            )
        return loader(self.train_set, [batch.chunk(world)[rank] for batch in batches])

    def val_dataloader(self) -> DataLoader[Any]:
        """The test part; processes that train together share every batch of it."""
        return self.evaluation_loader(False, *self._place)

    @property
    def _place(self) -> tuple[int, int]:
        """Number of this process among those that train together, and how many they are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def evaluation_loader(self, train: bool, rank: int = 0, world: int = 1) -> DataLoader[Any]:
        """All items of the training or the test part, in order and without augmentation; for `prepared`.

        Of ``world`` processes each has as many batches, none of them empty.
        """
        split = self.evaluated(train)
        if len(split) < world:
            raise LinconError(f"{len(split)} items cannot be shared by {world} processes.")
        batches = list(torch.arange(len(split)).split(self.evaluation_batch))
        if len(batches[-1]) < world:
            batches[-2:] = [torch.cat(batches[-2:])]
        return loader(split, [batch.tensor_split(world)[rank] for batch in batches])

    def evaluated(self, train: bool) -> Any:
        """The training or the test part, without augmentation."""
        return self.train_set if train else self.test_set

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.prepared(batch, self.trainer is not None and self.trainer.training)


def loader(split: Split, batches: Iterable[Tensor]) -> DataLoader[Any]:
    """The items at each of ``batches``, (n,): one indexing operation a batch, and nothing is collated.

    The generator is there so that loading leaves torch's global random state alone.
    """
    return DataLoader(
        split,
        sampler=[batch.tolist() for batch in batches],
        batch_size=None,
        num_workers=split.workers,
        generator=torch.Generator().manual_seed(0),
    )


def standardised(images: Tensor) -> Tensor:
    """Values in [0, 1] as models are given them: about zero, about as wide as one; channels last, which is faster."""
    return ((images - 0.45) / 0.25).contiguous(memory_format=torch.channels_last)
