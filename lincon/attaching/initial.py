"""The first free vector of a group, and the multipliers that match each tensor's deviation."""

from collections.abc import Iterator, Sequence
from math import isfinite

import torch
from torch import Tensor

from lincon.attaching.drawn import Drawn
from lincon.attaching.group import Group
from lincon.attaching.ledger import Entry, Ledger
from lincon.attaching.targets import Target
from lincon.counter import key
from lincon.errors import TargetError
from lincon.maps.scaled import Scaled
from lincon.shapes import Float

_FREE_STREAM = 202

FEW = 32
"""Tensors of fewer values are measured by their root mean square, not a standard deviation."""

AT_A_TIME = 1 << 20
"""Rows that are made at a time, by whole tensors: all of a large model's would not fit beside it."""

TINY = 100
"""A tensor this many times smaller than the average, such as a class token of 1e-6, is ignored.

It does not set the size of W.
"""


def initial(
    group: Group, targets: list[Target], scale: str | None, seed: int, zero: bool
) -> tuple[Group, Float[Tensor, " dof"]]:
    """The group with its multipliers, and its first free vector, float64 on the CPU.

    With ``scale="match"`` every tensor starts with the standard deviation of its own
    initialisation, and the smallest multiplier is 1 (tensors that are `TINY` have smaller ones).
    Otherwise the multipliers do not change, and the standard deviation over all tensors stays the
    same. ``zero`` sets W to zero and leaves the multipliers as they are.

    Raises:
        TargetError: a tensor has no values to match, or holds a value that is not finite.
    """
    free = _standard_normal(group.generator.dof, seed)
    start = torch.zeros_like(free) if zero else free
    _check_not_meta(targets, scale=scale)
    known = [_known_values(target) for target in targets]
    has_nothing_to_keep = not any(known)  # on meta, perhaps of a model larger than the memory
    if has_nothing_to_keep or (scale is None and zero):
        return group, start
    wanted = [deviation(target.tensor) for target in targets]
    _check_finite(targets, wanted)
    drawn = _deviations(group.scaled(), group.ledger, free)

    # With W of this standard deviation all tensors together keep the one they had.
    factor = _overall(wanted, known) / (_overall(drawn, known) or 1.0) or 1.0

    if scale == "match":
        ratios = _ratios(wanted, drawn, factor)
        factor = _smallest(ratios, factor)
        group = group.with_scales([ratio / factor for ratio in ratios])
    return group, start * factor


def drawn(targets: list[Target], seed: int) -> Drawn:
    """A W₀ at the scale of each tensor's own initialisation.

    Raises:
        TargetError: a tensor has no values to match, or holds a value that is not finite.
    """
    _check_not_meta(targets, offset="seed")
    deviations = [deviation(target.tensor) for target in targets]
    _check_finite(targets, deviations)
    return Drawn.like(seed, [target.tensor for target in targets], deviations)


def _ratios(wanted: list[float], drawn: list[float], overall: float) -> list[float]:
    """The factor that each tensor needs. A tensor of zeros takes the overall one."""
    pairs = zip(wanted, drawn, strict=True)
    return [want / have if want > 0 and have > 0 else overall for want, have in pairs]


def _smallest(ratios: list[float], overall: float) -> float:
    """The factor that W takes: the smallest that is not `TINY`.

    All multipliers are then at least 1, so that the learning rates of ordinary training carry over.
    """
    least = min(overall / TINY, max(ratios))
    return min(ratio for ratio in ratios if ratio >= least)


def deviation(tensor: Float[Tensor, "..."]) -> float:
    """The standard deviation of a tensor's values, computed in float64.

    It is the root mean square of fewer than `FEW` values, and 0 on the meta device.

    >>> deviation(torch.tensor([3.0, -3.0]))
    3.0
    """
    if tensor.is_meta:
        return 0.0
    values = tensor.detach().double()
    if values.numel() < FEW:
        return float(values.square().mean().sqrt())
    return float(torch.std(values, correction=0))


def _standard_normal(dof: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(key(seed, _FREE_STREAM) >> 1)
    return torch.randn(dof, generator=draw, dtype=torch.float64, device="cpu")


def _known_values(target: Target) -> int:
    return 0 if target.tensor.is_meta else target.tensor.numel()


def _check_not_meta(targets: list[Target], **choice: str | None) -> None:
    """Raise TargetError if a choice matches the values of tensors that have none."""
    ((option, value),) = choice.items()
    for target in targets:
        if target.tensor.is_meta and value in ("match", "seed"):
            raise TargetError(
                f"{target.name!r} is on the meta device: it has no values to match. "
                f"Materialise it, or give another {option}= than {value!r}."
            )


def _check_finite(targets: list[Target], deviations: list[float]) -> None:
    for target, of_target in zip(targets, deviations, strict=True):
        if not isfinite(of_target):
            raise TargetError(
                f"Weights for {target.name!r} hold a value that is not finite; "
                "nothing can be matched to them."
            )


def _deviations(linear_map: Scaled, ledger: Ledger, free: Tensor) -> list[float]:
    """The deviation that W gives each tensor; for few values, its expectation over seeds."""
    prepared, deviations = linear_map.prepare(free), []
    for entries in _runs(ledger, max(AT_A_TIME, linear_map.grain)):
        rows = linear_map.prepared_rows(prepared, entries[0].start, entries[-1].stop)
        parts = rows.split([entry.numel for entry in entries])
        deviations += [
            linear_map.energy(entry.start, entry.stop) ** 0.5
            if entry.numel < FEW
            else deviation(part)
            for entry, part in zip(entries, parts, strict=True)
        ]
    return deviations


def _runs(ledger: Ledger, rows: int) -> Iterator[list[Entry]]:
    """The entries, in runs that end as soon as they have so many rows."""
    run: list[Entry] = []
    for entry in ledger:
        run.append(entry)
        if run[-1].stop - run[0].start >= rows:
            yield run
            run = []
    if run:
        yield run


def _overall(deviations: Sequence[float], sizes: Sequence[int]) -> float:
    """The root mean square over all tensors, from their deviations and sizes."""
    total = sum(d * d * size for d, size in zip(deviations, sizes, strict=True))
    return float((total / max(1, sum(sizes))) ** 0.5)
