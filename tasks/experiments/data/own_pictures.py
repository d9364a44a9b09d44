"""Pictures of the user's own with what is to be found in them: arrays by name, of a file or a function.

The names of the arrays end in _train and _test; without these endings they are split.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float32, Int64, UInt8
from lincon.tasks.experiments.data.npz import path_and_options, read_npz
from lincon.tasks.experiments.data.picture_sets import Pictures
from lincon.tasks.experiments.data.sets import Split, digest
from lincon.tasks.experiments.importing import find_function

Arrays = Mapping[str, Any]


class InTensors(Split):
    """The items of a batch, a named tuple of tensors, in memory."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch[0])

    def __getitem__(self, indices: list[int]) -> Any:
        return type(self.batch)(*(values[indices] for values in self.batch))

    def fingerprint(self) -> str:
        return digest(*self.batch)

    def subset(self, indices: Int64[Tensor, " items"]) -> Self:
        return type(self)(self[indices.tolist()])


class OwnPictures(Pictures):
    """Pictures of the user's own, of the size that they have.

    Args:
        source: --root -> arrays by name, and what messages call their source.
    """

    name = "own"
    needed: ClassVar[Sequence[str]]
    """Names of the arrays that must be there, without their endings."""
    optional: ClassVar[Sequence[str]]
    """Names of those that may be there."""

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        source: Callable[[Path | None], tuple[Arrays, str]],
    ) -> None:
        self.source = source
        super().__init__(seed, batch, root, limit)

    @abstractmethod
    def checked(self, arrays: Arrays, what: str) -> Any:
        """The batch that arrays make, by the names in `needed` and `optional`.

        Raises LinconError for arrays that cannot be right; messages begin with ``what``.
        """

    def _read(self, root: Path | None) -> tuple[Split, Split]:
        arrays, what = self.source(root)
        if all(f"{name}{end}" in arrays for name in self.needed for end in ("_train", "_test")):
            train, test = (self._part(arrays, end, what) for end in ("_train", "_test"))
        elif all(name in arrays for name in self.needed):
            train, test = self._split(self._part(arrays, "", what), what)
        else:
            whole = " and ".join(self.needed)
            raise LinconError(
                f"{what} holds {', '.join(map(str, arrays)) or 'nothing'}: {whole} are needed, "
                f"which are then split, or each of them with _train and with _test; "
                f"{', '.join(self.optional)} may be there besides."
            )
        sizes = {split.batch.images.shape[-1] for split in (train, test)}
        if len(sizes) > 1:
            raise LinconError(f"{what}: training and test pictures are of two sizes, {sizes}.")
        (self.size,) = sizes
        return train, test

    def _part(self, arrays: Arrays, end: str, what: str) -> InTensors:
        names = [name for name in (*self.needed, *self.optional) if f"{name}{end}" in arrays]
        part = {name: arrays[f"{name}{end}"] for name in names}
        return InTensors(self.checked(part, f"{what}{f' ({end[1:]})' if end else ''}"))

    def _split(self, whole: InTensors, what: str) -> tuple[InTensors, InTensors]:
        count = len(whole) // 5
        if not count:
            raise LinconError(
                f"{what} has {len(whole)} pictures: too few to split, give _train and _test."
            )
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        self.note = (
            f"{what} was split by lincon: {count:,} pictures for the test, always the same; "
            f"{len(whole) - count:,} for training."
        )
        return whole.subset(order[count:].sort().values), whole.subset(order[:count].sort().values)


def own_pictures(kind: type[OwnPictures], name: str) -> Callable[..., Any] | None:
    """The data set that a .npz file, or package.module:function, stands for; None for other names.

    Raises:
        LinconError: options, which there are none of; a module that cannot be imported; no such
            function.
    """
    if (file := path_and_options(name)) is not None:
        path, text = file
        source: Callable[[Path | None], tuple[Arrays, str]] = partial(_from_file, path=path)
    else:
        module, colon, rest = name.partition(":")
        function, _, text = rest.partition(":")
        if not colon or not function.isidentifier():
            return None
        found = find_function("data set", module, function, ())
        source = partial(_from_function, function=found, name=f"{module}:{function}")
    if text:
        raise LinconError(f"--data {name}: there are no options of pictures of your own.")
    return partial(kind, source=source)


def _from_file(root: Path | None, path: Path) -> tuple[Arrays, str]:
    return read_npz(path), str(path)


def _from_function(
    root: Path | None, function: Callable[..., Any], name: str
) -> tuple[Arrays, str]:
    found = function(root=root) if "root" in signature(function).parameters else function()
    if not isinstance(found, Mapping):
        raise LinconError(
            f"{name} returned a {type(found).__name__}; for this task it must return a dictionary "
            "of arrays by name."
        )
    return found, name


def numbers(array: Any, shape: Sequence[int | None], what: str) -> Float32[Tensor, "..."]:
    """An array of real numbers as float32; LinconError unless it has ``shape``, None for any size."""
    found = np.asarray(array)
    fits = len(found.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
    )
    if found.dtype.kind not in "uif" or not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise LinconError(
            f"{what} is {found.dtype} of {found.shape}; numbers of ({wanted}) are needed."
        )
    return torch.from_numpy(found.astype(np.float32))


def rgb(array: Any, what: str) -> UInt8[Tensor, "n 3 size size"]:
    """Square colour pictures: uint8, or floats from 0 to 1, which are rounded to 256 steps."""
    found = np.asarray(array)
    if found.ndim == 4 and found.shape[3] == 3 and found.shape[1] != 3:
        found = rearrange(found, "n height width rgb -> n rgb height width")
    if found.ndim != 4 or found.shape[1] != 3 or found.shape[2] != found.shape[3] or not found.size:
        raise LinconError(
            f"{what} has shape {np.asarray(array).shape}; square pictures in colours are needed, "
            "(n, size, size, 3) or (n, 3, size, size)."
        )
    if found.dtype != np.uint8:
        if found.dtype.kind != "f" or not 0 <= found.min() <= found.max() <= 1:
            raise LinconError(f"{what} is {found.dtype}; give uint8, or floats from 0 to 1.")
        found = (found * 255).round().astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(found))
