"""Coarse-grained pruning: which channels fit into a budget of multiply-adds, and how the rest is trained on.

Knapsack pruning with inner distillation (Aflalo et al. 2020): every channel is an item with a worth
(Taylor importance) and a cost, the 0/1 knapsack is solved exactly (by HiGHS), the slim network is
rebuilt, and trained on with the outputs of its parts held near those of the network that it was.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from lincon import LinconError
from lincon.exporting import merged_copy
from lincon.tasks.classification.compression.channels import costs, importance, macs, slim
from lincon.tasks.classification.models.resnet import ResNet
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.trained.deploying import images_of

SHARE = 0.6
"""Of the multiply-adds that are left."""
BATCHES = 32
"""Batches of training images that importance is measured on."""
GAMMA = 0.2
"""Weight of the distillation against the loss."""
ROUNDS = 12
"""Halvings of the interval in which the budget of the items is looked for."""


def solve(worth: np.ndarray, cost: np.ndarray, budget: float) -> np.ndarray:
    """The subset of items, (n,) bool, of the largest worth in all whose cost is at most ``budget``; exact."""
    if not np.isfinite(worth).all():
        raise LinconError(
            "What channels are worth is not finite: the training before diverged; lower the "
            "learning rate."
        )
    found = milp(
        -worth / max(worth.max(), 1e-300),
        constraints=LinearConstraint(cost[None] / cost.max(), ub=budget / cost.max()),
        integrality=np.ones(len(worth)),
        bounds=Bounds(0, 1),
        options={
            "mip_rel_gap": 0.0,
            "presolve": False,
        },  # which takes longer than the solution of one row
    )
    if found.x is None:
        raise LinconError(
            f"A knapsack of {len(worth)} items and budget {budget:.3g} has no solution: "
            f"{found.message}"
        )
    return found.x > 0.5


def chosen(
    worth: Mapping[str, Tensor], cost: Mapping[str, float], budget: float
) -> dict[str, Tensor]:
    """Masks of the channels that fit the budget; of a group of which none would, its most worthy stays."""
    values = np.concatenate([each.numpy() for each in worth.values()])
    prices = np.concatenate([np.full(len(each), cost[name]) for name, each in worth.items()])
    taken = torch.from_numpy(solve(values, prices, budget)).split(
        [len(each) for each in worth.values()]
    )
    masks = {}
    for (name, each), mask in zip(worth.items(), taken, strict=True):
        masks[name] = mask if bool(mask.any()) else torch.arange(len(each)) == each.argmax()
    return masks


def fit(model: ResNet, data: Data, share: float = SHARE) -> dict[str, Tensor]:
    """Masks with which the slim network has ``share`` of the multiply-adds, as near as whole channels come from below.

    A channel that goes makes the layers that read it cheaper too, which costs of single items do
    not say; so the budget of the items is searched by halving, and the multiply-adds are those of
    the slim network, by torch's counter.
    """
    worth, images, plain = (
        importance(model, _labelled(data)),
        images_of(data, 1),
        merged_copy(model),
    )
    assert isinstance(plain, ResNet)
    return within(plain, worth, costs(plain, images), images, share)


def within(
    plain: ResNet,
    worth: Mapping[str, Tensor],
    cost: Mapping[str, float],
    images: Tensor,
    share: float,
) -> dict[str, Tensor]:
    """Masks with which a network, nothing of which is generated, has ``share`` of the multiply-adds or just less."""
    whole = macs(plain, images)
    total = sum(cost[name] * len(each) for name, each in worth.items())
    low, high, best = 0.0, 1.0, chosen(worth, cost, 0.0)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        masks = chosen(worth, cost, middle * total)
        if _macs_of(plain, masks, images) <= share * whole:
            low, best = middle, masks
        else:
            high = middle
    return best


def _macs_of(plain: nn.Module, masks: Mapping[str, Tensor], images: Tensor) -> int:
    trial = merged_copy(plain)
    assert isinstance(trial, ResNet)
    slim(trial, masks)
    return macs(trial, images)


def _labelled(data: Data) -> list[tuple[Tensor, Tensor]]:
    """Training images without augmentation, with their labels."""
    split: Any = data.train_set
    ends = range(0, min(len(split), BATCHES * data.batch), data.batch)
    return [
        data.prepared(split[list(range(n, min(n + data.batch, len(split))))], training=False)
        for n in ends
    ]


class Distillation(nn.Module):
    """Holds the outputs of a slim network's parts near those of the network that it was (inner distillation).

    The mean over the parts (stem, stages, head) of the mean squared error of a learned linear map
    of the slim outputs' channels to the teacher's. The teacher is no module of the model's: it is
    neither trained nor saved.
    """

    def __init__(self, model: ResNet, teacher: nn.Module, masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.__dict__["teacher"] = teacher.eval().requires_grad_(False)
        self.seen: dict[str, Tensor] = {}
        streams = {"stem": masks["stream.0"]} | {
            f"body.{n}": masks[f"stream.{n}"] for n in range(len(model.body))
        }
        self.maps = nn.ModuleDict({_key(part): _placing(mask) for part, mask in streams.items()})
        self.handles = [model.register_forward_pre_hook(self._look)]
        for part in (*streams, "head"):
            self.handles.append(
                model.get_submodule(part).register_forward_hook(partial(self._keep, part))
            )

    def _look(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.seen = {"images": inputs[0]}

    def _keep(self, part: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen[part] = output

    def penalty(self) -> Tensor:
        """Of the last batch that the model saw."""
        outputs: dict[str, Tensor] = {}
        mine = dict(self.seen)
        images = mine.pop("images")
        teacher = self.__dict__["teacher"].to(
            images
        )  # no module of the model's, which may have moved since
        hooks = [
            teacher.get_submodule(part).register_forward_hook(
                lambda module, inputs, output, part=part: outputs.update({part: output})
            )
            for part in mine
        ]
        with torch.no_grad():
            teacher(images)
        for hook in hooks:
            hook.remove()
        losses = []
        for part, output in mine.items():
            mapped = self.maps[_key(part)](output) if _key(part) in self.maps else output
            losses.append(nn.functional.mse_loss(mapped, outputs[part]))
        return GAMMA * torch.stack(losses).mean()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()


def _key(part: str) -> str:
    return part.replace(".", "_")


def _placing(mask: Tensor) -> nn.Conv2d:
    """A learned linear map from the channels that are kept to all of them; it begins as what puts each in its place."""
    layer = nn.Conv2d(int(mask.sum()), len(mask), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(len(mask))[:, mask][..., None, None])
    return layer
