"""Lego: every filter is built of a few small filters, each scaled by a coefficient.

The input channels of a convolution are cut into ``splits`` parts. Part s of filter o is one of m shared small filters
("legos", ``fan`` = in / splits * kernel values each), times a coefficient:

    G[(o, s, r), a(s, o) fan + r] = c(s, o).

The selection a and the coefficients c are learned first, straight through, in a warm-up (`warm_up`); then `freeze`
turns them into this generator, whose tables the file stores, and the legos alone train on (Yang et al., "LegoNet", ICML
2019, which trains the coefficients on as well).

    warm_up(model, splits=2, legos=0.5)      # a few epochs; add balance(model) to the loss
    constraint = freeze(model)               # an ordinary constraint from here on: make the optimizer again
"""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lincon.errors import LinconError, TargetError
from lincon.generators._single import Entries, Single
from lincon.maps.registry import register


@register
@final
class Lego(Single):
    """A frozen selection of legos.

    Args:
        rows: out * splits * fan. dof: legos * fan. seed: means nothing.
        select: (splits, out) integers, the lego of each part of each filter.
        coefficient: (splits, out) floating point.
    """

    name = "lego"

    def __init__(
        self,
        rows: int,
        dof: int,
        seed: int = 0,
        *,
        select: Tensor | None = None,
        coefficient: Tensor | None = None,
    ) -> None:
        super().__init__(rows, dof, seed)
        if select is None or coefficient is None:
            raise LinconError(
                "lego: its selection is learned: lincon.generators.lego.warm_up(model), then freeze(model)."
            )
        fan, left = divmod(rows, max(1, select.numel()))
        if select.shape != coefficient.shape or select.dim() != 2 or left or dof % fan:
            raise LinconError(
                f"lego: select {tuple(select.shape)} does not fit {rows} rows and {dof} dof."
            )
        if select.is_floating_point() or int(select.min()) < 0 or int(select.max()) >= dof // fan:
            raise LinconError(
                f"lego: select must be integers in [0, {dof // fan}), the number of legos."
            )
        if not bool(coefficient.isfinite().all()):
            raise LinconError("lego: a coefficient is not finite.")
        self.splits, self.fan = select.shape[0], fan
        self._select = select.detach().cpu().to(torch.int32)
        self._coefficient = coefficient.detach().cpu().float()

    def tables(self) -> dict[str, Tensor]:
        return {"select": self._select, "coefficient": self._coefficient}

    def energy(self, start: int, stop: int) -> float:
        return float(self._coefficient.double().square().mean())

    def entries(self, rows: Tensor) -> Entries:
        part = rows // self.fan
        place = part % self.splits, part // self.splits
        select, coefficient = self._select.to(rows.device), self._coefficient.to(rows.device)
        return select[place].long() * self.fan + rows % self.fan, coefficient[place]


class WarmUp(nn.Module):
    """The parametrization of one convolution while its selection is learned: legos, logits and coefficients train."""

    def __init__(self, weight: Tensor, splits: int, legos: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]
        if inputs % splits:
            raise TargetError(f"{inputs} input channels cannot be cut into {splits} equal splits.")
        count, fan = max(1, round(legos * outputs)), weight[0].numel() // splits
        self.shape = weight.shape
        self.legos = nn.Parameter(
            torch.randn(count, fan, device=weight.device) * weight.detach().std()
        )
        self.logits = nn.Parameter(torch.randn(splits, outputs, count, device=weight.device))
        self.coefficient = nn.Parameter(torch.ones(splits, outputs, device=weight.device))

    def forward(self) -> Tensor:
        chosen = nn.functional.one_hot(self.logits.argmax(-1), self.logits.shape[-1]).to(
            self.logits
        )
        straight = (
            chosen + self.logits - self.logits.detach()
        )  # the value is one-hot, the gradient that of the logits
        parts = torch.einsum("som,mf,so->osf", straight, self.legos, self.coefficient)
        return parts.reshape(self.shape)

    def right_inverse(self, _: Tensor) -> tuple[()]:
        return ()

    def imbalance(self) -> Tensor:
        """How far each lego's number of uses is outside of the floor and ceiling of the mean, (legos,)."""
        uses = torch.bincount(
            self.logits.argmax(-1).reshape(-1), minlength=self.logits.shape[-1]
        ).float()
        mean = uses.mean()
        return (uses - mean.ceil()).clamp(min=0) - (mean.floor() - uses).clamp(min=0)


def warm_up(
    model: nn.Module, *, splits: int = 2, legos: float = 0.5, where: list[str] | None = None
) -> list[str]:
    """Let the convolutions of a model learn which legos they are made of, in place.

    Args:
        splits: parts of the input channels. legos: their number, as a fraction of each layer's filters.
        where: names of the weights; by default those of all Conv2d whose input channels ``splits`` divides, but the
            first.

    Returns:
        The names. Raises TargetError for a weight that is no convolution's, before anything is changed.
    """
    names = _convolutions(model, splits) if where is None else where
    places = [_place(model, name) for name in names]
    steps = [WarmUp(module.get_parameter(attribute), splits, legos) for module, attribute in places]
    for (module, attribute), step in zip(places, steps, strict=True):
        parametrize.register_parametrization(module, attribute, step, unsafe=True)
    return names


def balance(model: nn.Module, weight: float = 1e-4) -> Tensor:
    """A term of the loss that pushes the selections of a warm-up towards using every lego about equally often."""
    steps = [module for module in model.modules() if isinstance(module, WarmUp)]
    if not steps:
        raise TargetError("No warm-up is under way; call warm_up(model) first.")
    terms = [(step.imbalance() * step.logits.sum((0, 1))).sum() for step in steps]
    return weight * torch.stack(terms).sum()


def freeze(model: nn.Module) -> Any:
    """End the warm-up: a constraint whose free vectors are the legos, a group for every layer; same outputs."""
    from lincon.attaching.constrain import (
        constrain,
    )  # the attaching side knows the generators, not they it

    found = [
        (f"{name}.{attribute}" if name else attribute, module, attribute, steps[0])
        for name, module in model.named_modules()
        for attribute, steps in getattr(module, "parametrizations", {}).items()
        if isinstance(steps[0], WarmUp)
    ]
    if not found:
        raise TargetError("No warm-up is under way; call warm_up(model) first.")
    made, values = [], []
    for _, module, attribute, step in found:
        with torch.no_grad():
            weight = step().clone()
        module.parametrizations.pop(attribute)
        if not module.parametrizations:
            del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        module.register_parameter(attribute, nn.Parameter(weight))
        made.append(
            Lego(
                weight.numel(),
                step.legos.numel(),
                select=step.logits.argmax(-1),
                coefficient=step.coefficient,
            )
        )
        values.append(step.legos.detach())
    each = iter(made)
    names = [name for name, *_ in found]
    constraint = constrain(
        model, lambda rows, dof, seed: next(each), where=names, scope="tensor", scale=None
    )
    with torch.no_grad():
        for free, legos in zip(constraint.free.values(), values, strict=True):
            free.copy_(legos.reshape(-1))
    return constraint


def _convolutions(model: nn.Module, splits: int) -> list[str]:
    convolutions = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    ]
    return [
        f"{name}.weight"
        for name, m in convolutions[1:]
        if m.groups == 1 and m.in_channels % splits == 0
    ]


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    if not isinstance(module, nn.Conv2d) or attribute not in module._parameters:
        raise TargetError(f"{name!r} is not the weight of a Conv2d, of which alone legos are made.")
    return module, attribute
