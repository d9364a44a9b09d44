"""What every data set is: a LightningDataModule of a training and a test part.

The order of training depends on seed and epoch alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lincon import LinconError
from lincon.counter import key
from lincon.shapes import Float, Int64
from lincon.tasks.experiments.data.expected import check_root

SAMPLED = 16
"""Items of a split that its fingerprint reads."""


class Split(Dataset[Any], ABC):
    """One part of a data set: ``split[indices]`` is the batch of the items at these indices."""

    workers: int = 0
    """Processes that load."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: list[int]) -> Any: ...

    @abstractmethod
    def subset(self, indices: Int64[Tensor, " items"]) -> Self:
        """The same kind of split with the items at ``indices`` alone."""

    def fingerprint(self) -> str:
        """Tells these items from others: by their number, and by `SAMPLED` of them, evenly spread."""
        sample = torch.linspace(0, len(self) - 1, min(SAMPLED, len(self))).long().unique()
        return digest(len(self), *self[sample.tolist()])


class Data(lightning.LightningDataModule, ABC):
    """Items in two parts, ``train_set`` and ``test_set``.

    Args:
        seed: of the order of the training items; equal seeds give equal batches, whatever the
            model.
        batch: items a step.
        root: folder of the data set, for one that is not embedded.
        limit: how many training items are used, a fixed choice of them; None for all. The test set
            is always whole.

    Raises:
        LinconError: a limit below 1 or above the number of items; missing or damaged files, by
            name.
    """

    name: str
    evaluation_batch = 512
    """Items a batch when a model is measured."""
    first_epoch: int = 0
    """Epochs of the training before the trainer's first, so that phases go on with the order."""
    note: str = ""
    """What a reader of a table must know of the data, such as how they were split."""

    def __init__(
        self, seed: int = 0, batch: int = 64, root: Path | None = None, limit: int | None = None
    ) -> None:
        super().__init__()
        self.seed, self.batch = seed, batch
        if root is not None:
            check_root(root)
        train_set, self.test_set = self._read(root)
        self.train_set = train_set if limit is None else self._limited(train_set, limit)

    def hold_out(self, count: int, limit: int | None = None) -> None:
        """Let ``count`` training items stand in for the test set, a fixed choice of them.

        Choices that are made by what a model scores on them, such as a learning rate, leave the
        test set unseen.

        Args:
            count: items that are held out; they are as the test sees items, not augmented.
            limit: how many of the others are used; None for all.

        Raises:
            LinconError: a count that leaves no item to train on, or fewer items than ``limit``.
        """
        items = len(self.train_set)
        if not 1 <= count < items:
            raise LinconError(
                f"{count} of {items} training items are to be held out: choose from 1 to "
                f"{items - 1}."
            )
        held = self._chosen(self.train_set, count)
        is_left = torch.ones(items, dtype=torch.bool).index_fill(0, held, False)
        self.test_set = self.evaluated(True).subset(held)
        self.train_set = self.train_set.subset(is_left.nonzero().flatten())
        if limit is not None:
            self.train_set = self._limited(self.train_set, limit)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """What an architecture must know of the items: its positional arguments."""

    def described(self) -> dict[str, Any]:
        """What a prediction for other items must know of these, as plain JSON."""
        return {}

    @abstractmethod
    def _read(self, root: Path | None) -> tuple[Any, Any]:
        """The training and the test part, whole."""

    @abstractmethod
    def prepared(self, batch: Any, training: bool) -> Any:
        """A batch as the model takes it, on the batch's device; augmented if ``training``."""

    def _chosen(self, split: Any, limit: int) -> Int64[Tensor, " limit"]:
        """Indices of a fixed choice of ``limit`` items, ascending."""
        generator = torch.Generator().manual_seed(0)
        indices = torch.randperm(len(split), generator=generator)[:limit]
        return indices.sort().values

    def _limited(self, split: Any, limit: int) -> Any:
        if not 1 <= limit <= len(split):
            raise LinconError(
                f"{limit} training images asked for: "
                f"choose from 1 to {len(split)}, all that there are."
            )
        return split.subset(self._chosen(split, limit))

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of training items, shuffled by seed and current epoch alone.

        A last batch that is not full is left out. Processes that train together share every batch,
        so that their steps are those of one process. The Trainer must reload the loader every
        epoch: then a resumed training sees the order that it would have seen.

        Raises:
            LinconError: a batch that the processes cannot share evenly.
        """
        epoch = self.first_epoch + (self.trainer.current_epoch if self.trainer else 0)
        generator = torch.Generator().manual_seed(key(self.seed, epoch))
        order = torch.randperm(len(self.train_set), generator=generator)
        # A training set that is smaller than one batch is a batch of its own.
        full = len(order) // self.batch * self.batch or len(order)
        batches = torch.split(order[:full], self.batch)
        rank, world = self._rank_and_world
        if world > 1 and any(len(batch) % world for batch in batches):
            raise LinconError(
                f"{len(batches[0])} items a step cannot be shared by {world} processes: "
                "see --batch."
            )
        return loader(self.train_set, [batch.chunk(world)[rank] for batch in batches])

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the test part; processes that train together share every batch."""
        return self.evaluation_loader(False, *self._rank_and_world)

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        """Number of this process among those that train together, and how many they are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def evaluation_loader(self, train: bool, rank: int = 0, world: int = 1) -> DataLoader[Any]:
        """Batches of all items of the training or the test part, in order, for `prepared`.

        Args:
            train: the training part, without augmentation, instead of the test part.
            rank: number of this process.
            world: how many processes share every batch; each gets a part of it, never an empty one.

        Raises:
            LinconError: fewer items than processes.
        """
        split = self.evaluated(train)
        if len(split) < world:
            raise LinconError(f"{len(split)} items cannot be shared by {world} processes.")
        batches = list(torch.split(torch.arange(len(split)), self.evaluation_batch))
        if len(batches[-1]) < world:
            batches[-2:] = [torch.cat(batches[-2:])]
        return loader(split, [batch.tensor_split(world)[rank] for batch in batches])

    def evaluated(self, train: bool) -> Any:
        """The training or the test part, without augmentation."""
        return self.train_set if train else self.test_set

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.prepared(batch, self.trainer is not None and self.trainer.training)


def loader(split: Split, batches: Iterable[Int64[Tensor, " _"]]) -> DataLoader[Any]:
    """A loader of the items at each of ``batches``: one indexing operation each, no collation."""
    return DataLoader(
        split,
        sampler=[batch.tolist() for batch in batches],
        batch_size=None,
        num_workers=split.workers,
        # A loader without a generator draws from torch's global one.
        generator=torch.Generator().manual_seed(0),
    )


def digest(*parts: Any) -> str:
    """A fingerprint of tensors, of which every byte counts, and of plain values.

    >>> digest(torch.tensor([0.0, 1.0])) == digest(torch.tensor([0.0, 2.0]))
    False
    """
    total = sha256()
    for part in parts:
        if isinstance(part, Tensor):
            total.update(f"{part.dtype}{tuple(part.shape)}".encode())
            plain = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            total.update(plain.numpy().data)
        else:
            total.update(f"{part!r};".encode())
    return total.hexdigest()[:16]


def standardised(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Images from [0, 1] as models take them: about 0, with a deviation of about 1.

    The memory format is channels last, which is faster.

    >>> standardised(torch.full((1, 3, 2, 2), 0.45)).abs().max().item()
    0.0
    """
    return ((images - 0.45) / 0.25).contiguous(memory_format=torch.channels_last)
