"""Export: a merged copy of a model in a format that needs no lincon, checked against the model."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import inf
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from lincon.attaching.binding import merge
from lincon.attaching.constraint import constraints
from lincon.errors import LinconError
from lincon.files.atomic import atomic_write, check_replaceable

TOLERANCE = 1e-4
"""The largest allowed error, relative to the largest output. Other kernels round differently."""

MARK = "Written by lincon export."
"""The sentence by which an exported file is known. A file without it is not replaced.

Files of safetensors and ONNX hold it in their metadata, programs of torch as an extra file.
"""


def export(model: nn.Module, path: str | os.PathLike[str], example: Tensor) -> float:
    """Write a merged copy of a model for evaluation. The model itself does not change.

    The file's ending sets the format: ``.safetensors`` is a plain state_dict, ``.pt2`` a program of
    torch.export, ``.onnx`` an ONNX program (needs onnx and onnxscript). Programs take batches of
    any size. The file is read again and must reproduce the model's outputs: bit for bit from a
    state_dict, otherwise within `TOLERANCE`.

    Args:
        model: a constrained model (also quantised or pruned) or a plain one. Its forward takes one
            tensor.
        path: the file, which is written whole or not at all. It may replace an earlier export, and
            no other file.
        example: a batch of inputs, (n, ...), where n is at least 2.

    Returns:
        The largest difference between outputs, relative to the largest output.

    Raises:
        LinconError: the format is unknown, the example holds fewer than two inputs, the file at
            ``path`` is no export, the model's outputs are NaN, or the file's outputs differ from
            them (the file is then removed).

    >>> import lincon, tempfile
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(model, f"{folder}/plain.safetensors", torch.randn(2, 8))
    0.0
    """
    path = Path(path)
    if path.suffix not in _WAYS:
        raise LinconError(f"{path.name}: the name must end in one of {', '.join(_WAYS)}.")
    if example.dim() < 1 or len(example) < 2:
        raise LinconError(f"The example is {tuple(example.shape)}; give a batch of two or more.")
    check_replaceable(path, MARK)
    merged = merged_copy(model)
    other_size = torch.cat([example, example[:1]])  # not the size of the exported example
    expected = _outputs(merged, other_size)
    if any(bool(output.isnan().any()) for output in expected):
        raise LinconError(
            f"{path.name}: outputs of the model are NaN, so its training diverged. "
            "Nothing was exported."
        )
    write, limit = _WAYS[path.suffix]
    with _named_write(path, path.suffix) as temporary:
        gap = _gap(write(merged, temporary, example, other_size), expected)
        if not gap <= limit:
            raise LinconError(
                f"{path.name}: its outputs differ from the model's by {gap:.3g} of the largest."
            )
    return gap


def save_program(program: nn.Module, path: Path, example: Tensor) -> None:
    """Write a program, as `lincon.int8.to_int8` makes one, to a ``.pt2``, whole or not at all.

    It may replace an earlier export, and no other file.
    """
    check_replaceable(path, MARK)
    with _named_write(path, ".pt2") as temporary:
        _save(_exported(program, example), temporary)


def merged_copy(model: nn.Module) -> nn.Module:
    """A plain copy of a model, constrained or not, for evaluation.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> sorted(merged_copy(model).state_dict())
    ['bias', 'weight']
    """
    copy = deepcopy(model)
    if constraints(copy):
        merge(copy)
    return copy.eval()


@contextmanager
def _named_write(path: Path, ending: str) -> Iterator[Path]:
    """Like `atomic_write`, but the temporary name has this ending, which torch looks at."""
    with atomic_write(path) as temporary:
        named = temporary.with_name(temporary.name + ending)
        try:
            yield named
            os.replace(named, temporary)
        finally:
            named.unlink(missing_ok=True)


def _outputs(model: Callable[..., object], example: Tensor) -> list[Tensor]:
    """All tensors that the model returns, in their order."""
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(example))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _gap(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of two values, relative to the largest expected one.

    It is infinite if the tensors cannot be compared.
    """
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in expected]:
        return inf
    difference = largest = 0.0
    for output, wanted in zip(outputs, expected, strict=True):
        output, wanted = output.double(), wanted.double()
        if not torch.equal(output.isnan(), wanted.isnan()):
            return inf
        if not wanted.numel():
            continue
        # Equal infinities do not differ. NaNs were compared above.
        gap = torch.where(output == wanted, 0.0, (output - wanted).abs())
        difference = max(difference, float(gap.nan_to_num(0, posinf=inf).max()))
        largest = max(largest, float(wanted.abs().nan_to_num(0, posinf=0).max()))
    return difference / (largest or 1.0)


def _state_dict(model: nn.Module, path: Path, example: Tensor, other_size: Tensor) -> list[Tensor]:
    save_model(model, str(path), {"written by": MARK})
    blank = deepcopy(model)
    with torch.no_grad():
        for tensor in blank.state_dict().values():
            tensor.zero_()
    load_model(blank, path)
    return _outputs(blank, other_size)


def _exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path, extra_files={"lincon": MARK})


def _program(model: nn.Module, path: Path, example: Tensor, other_size: Tensor) -> list[Tensor]:
    _save(_exported(model, example), path)
    return _outputs(torch.export.load(path).module(), other_size)


def _onnx(model: nn.Module, path: Path, example: Tensor, other_size: Tensor) -> list[Tensor]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    program = torch.onnx.export(_exported(model, example), dynamo=True, verbose=False)
    assert program is not None
    program.model.metadata_props["written by"] = MARK
    program.save(path)
    evaluator = ReferenceEvaluator(onnx.load(path))
    (name,) = evaluator.input_names
    return [torch.from_numpy(output) for output in evaluator.run(None, {name: other_size.numpy()})]


_WAYS: dict[str, tuple[Callable[[nn.Module, Path, Tensor, Tensor], list[Tensor]], float]] = {
    ".safetensors": (_state_dict, 0.0),
    ".pt2": (_program, TOLERANCE),
    ".onnx": (_onnx, TOLERANCE),
}
