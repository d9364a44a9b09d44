"""Export: a merged copy of a model in a format that needs no lincon, checked against the model it
was made from."""

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from lincon.attaching.binding import merge
from lincon.attaching.constraint import constraints
from lincon.errors import LinconError
from lincon.files.atomic import atomic_write

TOLERANCE = 1e-4
"""Relative to the largest output: other kernels round otherwise."""


def export(model: nn.Module, path: str | os.PathLike[str], example: Tensor) -> float:
    """Write a merged copy of a model, for evaluation; the model stays as it is.

    The name says the format: ``.safetensors``, a plain state_dict; ``.pt2``, a program of
    torch.export; ``.onnx`` (needs onnx and onnxscript). Programs take batches of any size. What was
    written is read again and must give the
    outputs of the model: bit for bit from a state_dict, else to `TOLERANCE`.

    Args:
        model: constrained (quantised and pruned ones too) or plain; its forward takes one tensor.
        path: of the file, written whole or not at all.
        example: an input, (n, ...) with n of 2 or more.

    Returns:
        The largest difference of an output, relative to the largest output.

    Raises:
        LinconError: another format, an example of less than two, outputs that are NaN, or a file
            whose outputs differ, which is not kept.
    """
    path = Path(path)
    if path.suffix not in _WAYS:
        raise LinconError(f"{path.name}: the name must end in one of {', '.join(_WAYS)}.")
    if example.dim() < 1 or len(example) < 2:
        raise LinconError(f"The example is {tuple(example.shape)}; give a batch of two or more.")
    merged = merged_copy(model)
    more = torch.cat([example, example[:1]])  # another size than the one it is exported with
    expected = _outputs(merged, more)
    if any(bool(output.isnan().any()) for output in expected):
        raise LinconError(
            f"{path.name}: outputs of the model are NaN: its training diverged; nothing was "
            "exported."
        )
    write, limit = _WAYS[path.suffix]
    with atomic_write(path) as temporary:
        place = temporary.with_name(temporary.name + path.suffix)  # torch looks at the ending
        try:
            outputs = write(merged, place, example, more)
            gap = _gap(outputs, expected)
            if not gap <= limit:
                raise LinconError(
                    f"{path.name}: its outputs differ from the model's by {gap:.3g} of the largest."
                )
            os.replace(place, temporary)
        finally:
            place.unlink(missing_ok=True)
    return gap


def save_program(program: nn.Module, path: Path, example: Tensor) -> None:
    """Write a program, such as `lincon.int8.to_int8` makes, as ``.pt2``; whole or not at all."""
    with atomic_write(path) as temporary:
        place = temporary.with_name(f"{temporary.name}.pt2")
        try:
            torch.export.save(_exported(program, example), place)
            os.replace(place, temporary)
        finally:
            place.unlink(missing_ok=True)


def merged_copy(model: nn.Module) -> nn.Module:
    """A plain copy of a model, constrained or not, for evaluation."""
    copy = deepcopy(model)
    if constraints(copy):
        merge(copy)
    return copy.eval()


def _outputs(model: Callable[..., object], example: Tensor) -> list[Tensor]:
    """All tensors that come out, in their order."""
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(example))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _gap(found: list[Tensor], expected: list[Tensor]) -> float:
    if len(found) != len(expected) or any(
        a.shape != b.shape for a, b in zip(found, expected, strict=True)
    ):
        return float("inf")
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True) if b.numel()]
    if any(not torch.equal(a.isnan(), b.isnan()) for a, b in pairs):
        return float("inf")
    gaps = [
        torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(0, posinf=torch.inf).max()
        for a, b in pairs
    ]
    largest = (
        max((float(b.abs().nan_to_num(0, posinf=0).max()) for _, b in pairs), default=0.0) or 1.0
    )
    return max(map(float, gaps), default=0.0) / largest


def _state_dict(model: nn.Module, path: Path, example: Tensor, more: Tensor) -> list[Tensor]:
    save_model(model, str(path))
    blank = deepcopy(model)
    with torch.no_grad():
        for tensor in blank.state_dict().values():
            tensor.zero_()
    load_model(blank, path)
    return _outputs(blank, more)


def _exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def _program(model: nn.Module, path: Path, example: Tensor, more: Tensor) -> list[Tensor]:
    torch.export.save(_exported(model, example), path)
    return _outputs(torch.export.load(path).module(), more)


def _onnx(model: nn.Module, path: Path, example: Tensor, more: Tensor) -> list[Tensor]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    made = torch.onnx.export(_exported(model, example), dynamo=True, verbose=False)
    assert made is not None
    made.save(path)
    evaluator = ReferenceEvaluator(onnx.load(path))
    (name,) = evaluator.input_names
    return [torch.from_numpy(output) for output in evaluator.run(None, {name: more.numpy()})]


_WAYS: dict[str, tuple[Callable[[nn.Module, Path, Tensor, Tensor], list[Tensor]], float]] = {
    ".safetensors": (_state_dict, 0.0),
    ".pt2": (_program, TOLERANCE),
    ".onnx": (_onnx, TOLERANCE),
}
