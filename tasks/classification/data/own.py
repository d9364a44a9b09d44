"""Data of the user's own: a .npz file, or a function; `class_folders` has the third form.

`--data my.npz`, `--data package.module:function` and `--data folder:size=32 --root FOLDER`. Options
of all of them: `shift=4` moves training images by up to so many pixels each way, `flip=1` mirrors
half of them. By default nothing is augmented.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn

from lincon.tasks.classification.data.arrays import Parts, read_arrays
from lincon.tasks.classification.data.images import Images, floats
from lincon.tasks.classification.data.returned import call
from lincon.tasks.classification.data.sets import Labelled
from lincon.tasks.experiments.data.npz import path_and_options
from lincon.tasks.experiments.importing import find_function
from lincon.tasks.experiments.names import options


class OwnImages(Images):
    """Images of the user's own, augmented as the options say.

    Args:
        source: --root -> the two parts and a note.
        shift: pixels by which training images are moved at most, each way; the edge is repeated.
        flip: whether half of the training images are mirrored.
    """

    name = "own"

    def __init__(
        self,
        seed: int = 0,
        batch: int = 64,
        root: Path | None = None,
        limit: int | None = None,
        *,
        source: Callable[[Path | None], Parts],
        shift: int | None = None,
        flip: bool = False,
    ) -> None:
        self.source, self.shift, self.flip = source, shift, flip
        super().__init__(seed, batch, root, limit)

    def _read(self, root: Path | None) -> tuple[Labelled, Labelled]:
        train, test, self.note = self.source(root)
        self.class_names = getattr(train, "class_names", ())
        _, self.channels, self.size, _ = train[[0]].images.shape
        self.classes = int(train.labels.max()) + 1
        with torch.random.fork_rng(devices=[]):  # items may be drawn at random
            torch.manual_seed(0)
            self.mean, self.std = self._mean_and_deviation(train)
        return train, test

    def _mean_and_deviation(self, train: Labelled) -> tuple[Tensor, Tensor]:
        """Of each channel of the training images."""
        count = total = squares = torch.zeros(1, dtype=torch.double)
        for indices in torch.arange(len(train)).split(4096):
            values = floats(train[indices.tolist()].images).double()
            by_channel = rearrange(values, "n channels height width -> channels (n height width)")
            count = count + by_channel.shape[1]
            total, squares = total + by_channel.sum(1), squares + by_channel.square().sum(1)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        # A channel that is the same everywhere is only moved to 0.
        deviation = torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, 1)
        return mean.float(), deviation.float()

    def _augmentation(self) -> nn.Module:
        steps: list[nn.Module] = []
        if self.shift:
            shape = (self.size, self.size)
            steps.append(RandomCrop(shape, padding=self.shift, padding_mode="replicate"))
        if self.flip:
            steps.append(RandomHorizontalFlip())
        return nn.Sequential(*steps)


def own_data(name: str) -> Callable[..., Images] | None:
    """The data set that a path to a .npz file, or package.module:function, stands for; or None.

    Options follow a colon: "my.npz:shift=2", "package.module:function:flip=1".

    Raises:
        LinconError: an unknown option; a module that cannot be imported; no such function.
    """
    if (file := path_and_options(name)) is not None:
        path, text = file
        return _with_options(partial(read_arrays, path=path), str(path), text)
    module, colon, rest = name.partition(":")
    function, _, text = rest.partition(":")
    if not colon or not function.isidentifier():
        return None
    whole = f"{module}:{function}"
    found = find_function("data set", module, function, ())
    return _with_options(partial(call, function=found, name=whole), whole, text)


def _with_options(
    source: Callable[[Path | None], Parts], name: str, text: str
) -> Callable[..., Images]:
    make = partial(OwnImages, source=source)
    return partial(make, **options(name, make, text)) if text else make
