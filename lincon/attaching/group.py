"""A group: the tensors that share one free vector.

A group is a value. The owner holds the vector itself (see `FreeVector`).
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lincon.attaching.drawn import Drawn
from lincon.attaching.ledger import Ledger
from lincon.generator import Generator
from lincon.maps.per_device import per_device
from lincon.maps.scaled import Scaled
from lincon.shapes import Float


@dataclass(frozen=True)
class Group:
    """Tensors that share one free vector. Groups are equal if a file describes both alike.

    Attributes:
        free: name of the free vector's Parameter in the owner.
        generator: G.
        ledger: which tensor owns which rows of G, with which multiplier.
        isometric: whether the columns of the map are scaled to norm 1.
        origin: name of the owner's buffer that holds W₀, (rows,), or None.
        drawn: W₀, if it is drawn from the seed and no buffer holds it, or None.
        devices: the device of each entry, or None if it is that of the free vector; () if all are
            on that one.
        lowered: whether the weights are generated in autocast's lower precision, because autocast
            casts them in all their uses.
        gradient: the divisor of the free vector's gradient, see `divisor`.
        steps: name of the owner's buffer that holds the steps of a quantised free vector,
            (dof / ``size`` rounded up,), or None.
        size: the number of entries of a quantised free vector that share a step.
        entry: name of the tensor beside the free vector in a state_dict that says what G is.
    """

    free: str
    generator: Generator
    ledger: Ledger
    isometric: bool = False
    origin: str | None = None
    drawn: Drawn | None = None
    devices: tuple[str | None, ...] = field(default=(), compare=False)
    lowered: bool = field(default=False, compare=False)
    gradient: str = field(default="euclidean", compare=False)
    steps: str | None = None
    size: int = 0
    entry: str = field(default="", compare=False)

    map: Generator = field(init=False, compare=False)
    """diag(scale) G diag(column scale), which turns the free vector into all weights."""

    def __post_init__(self) -> None:
        plain = not self.isometric and set(self.ledger.scales) <= {1.0}
        object.__setattr__(self, "map", self.generator if plain else self.scaled())

    def scaled(self) -> Scaled:
        """The map with the ledger's multipliers, even if they are all 1."""
        return Scaled(self.generator, self.ledger.sizes, self.ledger.scales, self.isometric)

    def with_scales(self, scales: list[float]) -> "Group":
        """The same group with other multipliers, one for each entry."""
        pairs = zip(self.ledger, scales, strict=True)
        return replace(self, ledger=Ledger(tuple(replace(e, scale=scale) for e, scale in pairs)))

    @property
    def buffers(self) -> tuple[str, ...]:
        """Names of the owner's buffers that belong to this group."""
        return tuple(name for name in (self.origin, self.steps) if name is not None)

    @property
    def has_offset(self) -> bool:
        """Whether there is a W₀."""
        return self.origin is not None or self.drawn is not None

    @property
    def has_weights(self) -> bool:
        """Whether it generates a tensor of two or more dimensions: not norms and biases alone."""
        return any(len(entry.shape) >= 2 for entry in self.ledger)

    def device(self, index: int) -> str | None:
        """The device of an entry, or None if it is that of the free vector."""
        return self.devices[index] if self.devices else None

    def divisor(self, like: Tensor) -> Float[Tensor, " dof"] | None:
        """The divisor of the free vector's gradient, or None for the plain ("euclidean") gradient.

        "gram" divides by diag(GᵀG), the sum of c² over the uses of an entry, where c is the
        multiplier. If GᵀG is diagonal, gradient descent on W then moves the weights as projected
        gradient descent on Ŵ does. "mean" divides by (Σc)² / Σ1 over the uses, the default scaler
        of STABLE-RPS (Desai and Shrivastava, ICLR 2024). The result is on the device and in the
        dtype of ``like``.
        """
        if self.gradient == "euclidean":
            return None
        return self._divisor(like.device, like.dtype)

    @per_device
    def _divisor(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        total = self.map.gram_diagonal() if self.gradient == "gram" else self._mean_divisor()
        used = total > 0
        return total.where(used, torch.ones_like(total)).to(device, dtype)

    def _mean_divisor(self) -> Tensor:
        scales = torch.tensor(self.ledger.scales, dtype=torch.float64, device="cpu")
        sizes = torch.tensor(self.ledger.sizes, device="cpu")
        sums = self.generator.gram_diagonal(scales.repeat_interleave(sizes))
        uses = self.generator.gram_diagonal()
        return sums.square() / uses.where(uses > 0, torch.ones_like(uses))
