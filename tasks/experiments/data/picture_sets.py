"""Data sets of square pictures whose size is an option, read from disk or synthetic."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.data.cached import Cached
from lincon.tasks.experiments.data.sets import Data, Split, standardised
from lincon.tasks.experiments.data.synthetic import Synthetic


class Pictures(Data):
    """Square pictures in two parts, ``train_set`` and ``test_set``.

    A batch is a named tuple with a field ``images`` (n, 3, height, width), uint8. Training batches
    are augmented; all are standardised.

    Args:
        size: height and width in pixels of the pictures that a model sees.
    """

    augmentation: ClassVar[type[nn.Module]]
    """Changes a batch whose images are floats in [0, 1]."""

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 64,
    ) -> None:
        self.size = size
        super().__init__(seed, batch, root, limit)
        self.augment = self.augmentation()

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def prepared(self, batch: Any, training: bool) -> Any:
        pictures = batch._replace(images=batch.images.float() / 255)
        pictures = self.framed(self.augment(pictures) if training else pictures)
        return pictures._replace(images=standardised(pictures.images))

    def framed(self, batch: Any) -> Any:
        """The part of each picture that a model sees; by default all of it."""
        return batch


class SyntheticPictures(Pictures):
    """Pictures that are made when they are asked for: these data sets need no file.

    Training has 4,096 of them, or as many as ``limit`` says, which may be any number from 1 on. The
    pictures of the test are others, `test_count` of them.
    """

    test_count: ClassVar[int]
    cached_count: ClassVar[int]
    """Up to so many training pictures stay in memory; more are made again in every epoch."""

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 64,
    ) -> None:
        self.count = 4096 if limit is None else limit
        if self.count < 1:
            raise LinconError(f"{self.count} training images asked for: choose 1 or more.")
        super().__init__(seed, batch, root, size=size)

    @abstractmethod
    def source(self, count: int, seed: int) -> Synthetic:
        """``count`` pictures; another seed makes others."""

    def _read(self, root: Path | None) -> tuple[Split, Split]:
        training = self.source(self.count, seed=0)
        test = self.source(self.test_count, seed=1)
        return Cached(training) if self.count <= self.cached_count else training, Cached(test)
