"""Lego: every filter is built of a few small filters, each scaled by a coefficient.

The input channels of a convolution are cut into ``splits`` parts. Part s of filter o is one of m
shared small filters ("legos", ``fan`` = in / splits * kernel values each), times a coefficient:

    G[(o, s, r), a(s, o) fan + r] = c(s, o).

The selection a and the coefficients c are learned first, straight through, in a warm-up
(`warm_up`); then `freeze` turns them into this generator, whose tables the file stores, and the
legos alone train on (Yang et al., "LegoNet", ICML 2019, which trains the coefficients on as well).

    warm_up(model, splits=2, legos=0.5)      # a few epochs; add balance(model) to the loss
    constraint = freeze(model)               # an ordinary constraint: make the optimizer again
"""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lincon.errors import LinconError, TargetError
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.maps.registry import register
from lincon.shapes import Float, Int


@register
@final
class Lego(OneNonzero):
    """A frozen selection of legos: G[(o, s, r), a(s, o) fan + r] = c(s, o) (LegoNet, ICML 2019).

    Cost: O(rows).

    Args:
        rows: out * splits * fan.
        dof: legos * fan.
        seed: means nothing.
        select: (splits, out) integers, the lego of each part of each filter.
        coefficient: (splits, out) floating point.

    Two filters of one part, each of one of two legos of two numbers:

    >>> select, coefficient = torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.5]])
    >>> lego = Lego(rows=4, dof=4, select=select, coefficient=coefficient)
    >>> lego.unpack(torch.tensor([1.0, 2.0, 10.0, 20.0]))
    tensor([10.0000, 20.0000,  0.5000,  1.0000])
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
                "lego: its selection is learned: call lincon.generators.lego.warm_up(model), "
                "then freeze(model)."
            )
        fan, remainder = divmod(rows, max(1, select.numel()))
        if select.shape != coefficient.shape or select.dim() != 2 or remainder or dof % fan:
            raise LinconError(
                f"lego: select {tuple(select.shape)} does not fit {rows} rows and {dof} dof."
            )
        legos = dof // fan
        if select.is_floating_point() or int(select.min()) < 0 or int(select.max()) >= legos:
            raise LinconError(
                f"lego: select must be integers in [0, {legos}), the number of legos."
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

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        part, position = rows // self.fan, rows % self.fan
        split, output = part % self.splits, part // self.splits
        lego = self._select.to(rows.device)[split, output].long()
        coefficient = self._coefficient.to(rows.device)[split, output]
        return lego * self.fan + position, coefficient


class WarmUp(nn.Module):
    """The parametrization of one convolution while its selection is learned.

    Legos, logits of the selection and coefficients train.

    Args:
        weight: of the convolution, whose shape and standard deviation the legos take over.
        splits: parts of the input channels.
        legos: their number, as a fraction of the filters.

    Raises:
        TargetError: input channels that cannot be cut into equal splits.
    """

    def __init__(
        self, weight: Float[Tensor, "out in height width"], splits: int, legos: float
    ) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]
        if inputs % splits:
            raise TargetError(f"{inputs} input channels cannot be cut into {splits} equal splits.")
        count, fan = max(1, round(legos * outputs)), weight[0].numel() // splits
        self.shape = weight.shape
        device = weight.device
        initial = torch.randn(count, fan, device=device) * weight.detach().std()
        self.legos = nn.Parameter(initial)
        self.logits = nn.Parameter(torch.randn(splits, outputs, count, device=device))
        self.coefficient = nn.Parameter(torch.ones(splits, outputs, device=device))

    def forward(self) -> Float[Tensor, "out in height width"]:
        from einops import einsum

        one_hot = nn.functional.one_hot(self.select, len(self.legos)).to(self.logits)
        # Straight through: the value is the one-hot selection, the gradient that of the logits.
        straight = one_hot + self.logits - self.logits.detach()
        parts = einsum(
            straight,
            self.legos,
            self.coefficient,
            "split out lego, lego fan, split out -> out split fan",
        )
        return parts.reshape(self.shape)

    def right_inverse(self, _: Tensor) -> tuple[()]:
        return ()

    @property
    def select(self) -> Int[Tensor, "split out"]:
        """The lego of each part of each filter."""
        return self.logits.argmax(-1)

    def imbalance(self) -> Float[Tensor, " legos"]:
        """How far each lego's uses are above the ceiling (or below the floor) of their mean."""
        uses = torch.bincount(self.select.reshape(-1), minlength=len(self.legos)).float()
        mean = uses.mean()
        excess, shortfall = uses - mean.ceil(), mean.floor() - uses
        return excess.clamp(min=0) - shortfall.clamp(min=0)

    def generator(self) -> Lego:
        """The selection and the coefficients as they are, as a generator of the legos."""
        return Lego(
            self.shape.numel(),
            self.legos.numel(),
            select=self.select,
            coefficient=self.coefficient,
        )


def warm_up(
    model: nn.Module, *, splits: int = 2, legos: float = 0.5, where: list[str] | None = None
) -> list[str]:
    """Let the convolutions of a model learn which legos they are made of, in place.

    Args:
        splits: parts of the input channels.
        legos: their number, as a fraction of each layer's filters.
        where: names of the weights. The default is those of all Conv2d but the first whose input
            channels ``splits`` divides.

    Returns:
        The names.

    Raises:
        TargetError: a weight that is no convolution's. Nothing has been changed then.
    """
    names = _convolutions(model, splits) if where is None else where
    places = [_place(model, name) for name in names]
    steps = [WarmUp(module.get_parameter(attribute), splits, legos) for module, attribute in places]
    for (module, attribute), step in zip(places, steps, strict=True):
        parametrize.register_parametrization(module, attribute, step, unsafe=True)
    return names


def balance(model: nn.Module, weight: float = 1e-4) -> Tensor:
    """A term of the loss that pushes a warm-up towards using every lego about equally often."""
    steps = [module for module in model.modules() if isinstance(module, WarmUp)]
    if not steps:
        raise TargetError("No warm-up is under way; call warm_up(model) first.")
    terms = [(step.imbalance() * step.logits.sum((0, 1))).sum() for step in steps]
    return weight * torch.stack(terms).sum()


def freeze(model: nn.Module) -> Any:
    """End the warm-up: a constraint with a group for every layer, whose free vectors are the legos.

    The outputs of the model stay the same.

    Raises TargetError if no warm-up is under way.
    """
    # Attaching knows the generators; this is the one place where a generator knows of attaching.
    from lincon.attaching.constrain import constrain

    targets = _targets(model)
    if not targets:
        raise TargetError("No warm-up is under way; call warm_up(model) first.")
    generators = [target.warm_up.generator() for target in targets]
    for target in targets:
        _restore_parameter(target)
    next_generator = iter(generators)
    constraint = constrain(
        model,
        lambda rows, dof, seed: next(next_generator),
        where=[target.name for target in targets],
        scope="tensor",
        scale=None,
    )
    with torch.no_grad():
        for free, target in zip(constraint.free.values(), targets, strict=True):
            free.copy_(target.warm_up.legos.reshape(-1))
    return constraint


class _Target(NamedTuple):
    """A weight that is in its warm-up."""

    name: str
    module: nn.Module
    attribute: str
    warm_up: WarmUp


def _targets(model: nn.Module) -> list[_Target]:
    targets = []
    for path, module in model.named_modules():
        for attribute, steps in getattr(module, "parametrizations", {}).items():
            if isinstance(steps[0], WarmUp):
                name = f"{path}.{attribute}" if path else attribute
                targets.append(_Target(name, module, attribute, steps[0]))
    return targets


def _restore_parameter(target: _Target) -> None:
    """Make the weight an ordinary parameter again, whose value is that of the warm-up."""
    module = target.module
    with torch.no_grad():
        weight = target.warm_up().clone()
    parametrizations = module.get_submodule("parametrizations")
    delattr(parametrizations, target.attribute)
    if not list(parametrizations.children()):
        del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    module.register_parameter(target.attribute, nn.Parameter(weight))


def _convolutions(model: nn.Module, splits: int) -> list[str]:
    """The weights of all convolutions but the first that can be cut into ``splits``."""
    modules = model.named_modules()
    convolutions = [(path, module) for path, module in modules if isinstance(module, nn.Conv2d)]
    return [
        f"{path}.weight"
        for path, convolution in convolutions[1:]
        if convolution.groups == 1 and convolution.in_channels % splits == 0
    ]


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    if not isinstance(module, nn.Conv2d) or attribute not in module._parameters:
        raise TargetError(
            f"{name!r} is not the weight of a Conv2d: legos make up no other weights."
        )
    return module, attribute
