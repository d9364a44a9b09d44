"""The free vector of a group, which its owner holds, and the weights that it generates.

Every call looks the Parameter up in the owner, because `functional_call`, DDP and FSDP replace it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.group import Group
from lincon.attaching.ledger import Entry
from lincon.errors import TargetError
from lincon.processes.shards import check_local
from lincon.shapes import Float, Shaped


@dataclass(frozen=True, eq=False)
class FreeVector:
    """W of one group.

    Attributes:
        owner: the module that holds the Parameter.
        group: its name in the owner, its generator and its ledger.
    """

    owner: nn.Module
    group: Group

    @property
    def parameter(self) -> Shaped[Tensor, " dof"]:
        """W as it is now; integers (int8) if it is quantised.

        Raises TargetError if the owner does not have it any more.
        """
        parameter = self.owner._parameters.get(self.group.free)
        if parameter is None:
            raise TargetError(
                f"{self.group.free!r} is no longer a Parameter of the {type(self.owner).__name__}: "
                "it was parametrized, pruned, deleted or merged. Undo that "
                "(torch.nn.utils.parametrize.remove_parametrizations, torch.nn.utils.prune.remove);"
                " lincon.prune and lincon.quantize change a free vector."
            )
        return parameter

    def check_present(self) -> None:
        """Raise TargetError if the owner does not have the Parameter any more."""
        _ = self.parameter

    @property
    def origin(self) -> Float[Tensor, " rows"] | None:
        """W₀, or None."""
        if self.group.drawn is not None:
            return self.group.drawn.rows_like(self._exact)
        return None if self.group.origin is None else getattr(self.owner, self.group.origin)

    @property
    def steps(self) -> Float[Tensor, " steps"] | None:
        """The steps of a quantised W, or None."""
        return None if self.group.steps is None else self.owner._buffers[self.group.steps]

    @property
    def _exact(self) -> Tensor:
        """The tensor whose device and dtype the weights have: W, or the steps of a quantised W."""
        steps = self.steps
        return self.parameter if steps is None else steps

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights: W's, or autocast's if it would cast all the weights."""
        exact = self._exact
        if exact.is_meta or not self.group.lowered:  # torch knows no autocast of meta
            return exact.dtype
        device = exact.device.type
        autocast = torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if autocast else exact.dtype

    def effective(self, parameter: Shaped[Tensor, " dof"]) -> Float[Tensor, " dof"]:
        """W as the map reads it.

        A quantised W is multiplied by its steps. Otherwise the gradient is divided by the divisor
        of the group.
        """
        check_local(self.group.free, parameter)
        steps = self.steps
        if steps is not None:
            size = min(self.group.size, len(parameter))
            return parameter.to(steps.dtype) * steps.repeat_interleave(size)[: len(parameter)]
        divisor = self.group.divisor(parameter) if torch.is_grad_enabled() else None
        if divisor is None:
            return parameter
        return _divide_gradient(parameter, divisor)

    def weights(self) -> list[Tensor]:
        """All weights of the group, in the order of its ledger, from one operation."""
        group = self.group
        flat = group.map.unpack(self.effective(self.parameter), dtype=self.dtype)
        if (origin := self.origin) is not None:
            flat = flat + origin.to(flat.dtype)
        rows = flat.split(group.ledger.sizes)
        return [
            _to(part.view(entry.shape), group.device(index))
            for index, (part, entry) in enumerate(zip(rows, group.ledger, strict=True))
        ]

    def weight(self, index: int) -> Tensor:
        """The weight of one entry, generated alone."""
        entry = self.group.ledger.entries[index]
        free = self.effective(self.parameter)
        return self.shaped(
            index, self.group.map.unpack(free, entry.start, entry.stop, dtype=self.dtype)
        )

    def shaped(self, index: int, rows: Float[Tensor, " n"]) -> Tensor:
        """The weight of an entry from its generated rows: W₀ added, in its shape, on its device."""
        entry = self.group.ledger.entries[index]
        if (origin := self.origin) is not None:
            rows = rows + origin[entry.start : entry.stop].to(rows.dtype)
        return _to(rows.view(entry.shape), self.group.device(index))

    def fit(self, weights: Mapping[str, Tensor]) -> tuple[Float[Tensor, " dof"], float, float]:
        """The least-squares W for given weights in float64, ‖Ŵ - weights‖² and ‖weights‖².

        Nothing changes.

        Raises:
            TargetError: weights are missing, have another shape, or hold a value that is not
                finite.
        """
        target = torch.cat([self._target(entry, weights) for entry in self.group.ledger])
        origin = self.origin
        difference = target if origin is None else target - origin.double().cpu()
        linear_map = self.group.scaled()
        free = linear_map.project(difference)
        missed = (linear_map.unpack(free) - difference).square().sum()
        return free, float(missed), float(target.square().sum())

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Raise TargetError if given weights cannot be fitted; others may be missing."""
        for entry in self.group.ledger:
            if any(name in weights for name in entry.names):
                self._target(entry, weights)

    def _target(self, entry: Entry, weights: Mapping[str, Tensor]) -> Tensor:
        """The given weights of an entry, (numel,) float64 on the CPU."""
        weight = next((weights[name] for name in entry.names if name in weights), None)
        if weight is None:
            needed = [e.name for e in self.group.ledger]
            raise TargetError(f"No weights for {entry.name!r}; project needs all of: {needed}.")
        if tuple(weight.shape) != entry.shape:
            raise TargetError(
                f"Weights for {entry.name!r} have shape {tuple(weight.shape)}, not {entry.shape}."
            )
        if weight.is_meta:
            raise TargetError(
                f"Weights for {entry.name!r} are on the meta device: they have no values to fit. "
                "Materialise them first."
            )
        target = weight.detach().double().cpu().reshape(-1)
        if not bool(target.isfinite().all()):
            raise TargetError(
                f"Weights for {entry.name!r} hold a value that is not finite; "
                "nothing can be fitted to them."
            )
        return target


class _DividedGradient(torch.autograd.Function):
    """The identity, whose gradient is divided by ``divisor``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(free: Tensor, divisor: Tensor) -> Tensor:
        return free.view_as(free)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        # A constant: saved by autograd, it would be gone after the first of two backwards.
        ctx.divisor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.divisor, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:
        return tangent.view_as(tangent)


_divide_gradient: Callable[[Tensor, Tensor], Tensor] = _DividedGradient.apply


def _to(weight: Tensor, device: str | None) -> Tensor:
    return weight if device is None else weight.to(device)
