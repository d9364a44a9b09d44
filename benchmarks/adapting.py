"""Ways to adapt a trained model with few trained numbers: lincon's and peft's, by name.

Every way takes a model in place and gives back what is trained, what merges it, and what it saves. Norms
and biases are frozen in all of them.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import log
from pathlib import Path
from typing import Any

from torch import nn

import lincon
from lincon import LinconError

GENERATORS = "ring", "fastfood", "kronecker", "sparse"
NEAR = 1.5
"""peft's ranks are integers: a method takes as many places as it can within this factor of a budget,
and of all ranks there the one that comes nearest."""
RANKS = 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 49, 64

FACTOR_RANK = 4
"""Rank of the LoRA factors that lincon generates; that of UniLora, peft's default."""


@dataclass(frozen=True)
class Places:
    """Names of a model's parts.

    linear: modules that peft puts adapters around.
    attention: patterns of the weights of attention.
    head: modules that make the logits.
    """

    linear: Sequence[str]
    attention: Sequence[str]
    head: Sequence[str]

    @classmethod
    def of_gpt(cls, depth: int) -> "Places":
        """Those of `lincon.tasks.language`'s GPT of so many blocks."""
        parts = "attention.query_key_value", "attention.out", "hidden", "out"
        linear = [f"body.{number}.{part}" for number in range(depth) for part in parts]
        return cls(linear, ["*.attention.*weight"], ["embedding", "norm"])


@dataclass
class Adapted:
    """A model with an adapter.

    Args:
        model: is trained; what is not of the adapter is frozen.
        merged: makes a plain model of a copy.
        save: writes the adapter alone into a folder.
    """

    model: nn.Module
    merged: Callable[[nn.Module], nn.Module]
    save: Callable[[Path], Any]

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        return sum(each.numel() for each in self.model.parameters() if each.requires_grad)

    def file_bytes(self, folder: Path) -> int:
        """The bytes of the adapter on disk, without the model card that peft writes."""
        self.save(folder)
        return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".md")


Attach = Callable[[nn.Module, Places, int, int], Adapted]
"""(model, places, budget, seed) -> the adapted model. Raises LinconError where the budget is impossible."""


def full(model: nn.Module, places: Places, budget: int, seed: int) -> Adapted:
    """Every number, whatever the budget."""
    return _plain(model)


def head(model: nn.Module, places: Places, budget: int, seed: int) -> Adapted:
    """What makes the logits alone, whatever the budget; a tied head is the embedding as well."""
    model.requires_grad_(False)
    for name in places.head:
        model.get_submodule(name).requires_grad_(True)
    return _plain(model)


def _plain(model: nn.Module) -> Adapted:
    return Adapted(model, lambda other: other, partial(_save, model))


def _save(model: nn.Module, folder: Path) -> int:
    return lincon.save(model, folder / "adapter.safetensors", only="trained")


def generated(
    generator: str, where: str, model: nn.Module, places: Places, budget: int, seed: int
) -> Adapted:
    """W₀ + G W in all weights, or in those of attention."""
    chosen = None if where == "all" else list(places.attention)
    _constrain(model, generator, budget, seed, chosen)
    _train_free_alone(model)
    return Adapted(model, lincon.merge, partial(_save, model))


def generated_factors(
    generator: str, model: nn.Module, places: Places, budget: int, seed: int
) -> Adapted:
    """The factors of LoRA, all from one free vector."""
    import peft

    outer: Any = peft.get_peft_model(model, _factors(places))
    # B starts at zeros, which no pattern takes: a name that is written out whole does.
    names = [name for name, _ in outer.named_parameters() if "lora_" in name]
    _constrain(outer, generator, budget, seed, names)
    _train_free_alone(outer)

    def merged(other: Any) -> nn.Module:
        plain: nn.Module = lincon.merge(other).merge_and_unload()
        return plain

    return Adapted(outer, merged, partial(_save, outer))


def _constrain(
    model: nn.Module, generator: str, budget: int, seed: int, where: list[str] | None
) -> None:
    """Constrain, unless there would be more free numbers than weights."""
    made = lincon.constrain(model, generator, dof=budget, seed=seed, where=where, offset=True)
    if made.rows < budget:
        raise LinconError(f"{budget:,} trained numbers for {made.rows:,} weights.")


def _factors(places: Places) -> Any:
    """LoRA of `FACTOR_RANK` in all places."""
    import peft

    return peft.LoraConfig(
        r=FACTOR_RANK, lora_alpha=FACTOR_RANK, target_modules=list(places.linear)
    )


def _train_free_alone(model: nn.Module) -> None:
    model.requires_grad_(False)
    for constraint in lincon.constraints(model):
        for vector in constraint.vectors:
            vector.parameter.requires_grad_(True)


def of_peft(method: str, model: nn.Module, places: Places, budget: int, seed: int) -> Adapted:
    """The configuration of peft with the most places that is near to the budget.

    Raises:
        LinconError: none is near.
    """
    import peft

    nearest, distance = None, log(NEAR)
    for same_places in _configurations(method, places, budget, seed):
        for config in same_places:
            outer: Any = peft.get_peft_model(copy.deepcopy(model), config)
            own = abs(log(outer.get_nb_trainable_parameters()[0] / budget))
            if own < distance:
                nearest, distance = config, own
        if nearest is not None:
            break
    if nearest is None:
        raise LinconError(f"{method} has no configuration near {budget:,} trained numbers.")
    if method == "UniLora":
        rows = peft.get_peft_model(copy.deepcopy(model), _factors(places))
        if rows.get_nb_trainable_parameters()[0] < budget:
            raise LinconError(f"UniLora has fewer factors than {budget:,}.")
    outer = peft.get_peft_model(model, nearest)
    return Adapted(outer, lambda other: other.merge_and_unload(), outer.save_pretrained)


def _configurations(method: str, places: Places, budget: int, seed: int) -> Iterator[list[Any]]:
    """All ranks in all places, in the first half of them, and in one alone."""
    import peft

    linear = list(places.linear)
    if method == "UniLora":
        yield [
            peft.UniLoraConfig(
                r=FACTOR_RANK, theta_d_length=budget, proj_seed=seed, target_modules=linear
            )
        ]
        return
    for part in (linear, linear[: len(linear) // 2], linear[-1:], linear[-3:-2]):
        if method == "LoRA":
            yield [peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=part) for rank in RANKS]
        elif method == "VeRA":
            yield [
                peft.VeraConfig(
                    r=rank, projection_prng_key=seed, save_projection=False, target_modules=part
                )
                for rank in (4, 16, 64, 256, 1024, 4096, 12288)
            ]
        else:
            yield [
                peft.RandLoraConfig(
                    r=rank, randlora_alpha=rank, projection_prng_key=seed, save_projection=False,
                    target_modules=part,
                )
                for rank in RANKS
            ]  # fmt: skip


METHODS: dict[str, Attach] = {
    "full": full,
    "head only": head,
    **{name: partial(of_peft, name) for name in ("LoRA", "VeRA", "RandLora", "UniLora")},
    **{
        f"{generator}, {where} weights": partial(generated, generator, where)
        for generator, where in product(GENERATORS, ("all", "attention"))
    },
    **{
        f"{generator}, LoRA factors": partial(generated_factors, generator)
        for generator in GENERATORS
    },
}
"""Ways by name."""

WITHOUT_BUDGET = "full", "head only"
