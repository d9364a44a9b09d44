"""Coarse-grained pruning: the channels that fit a budget of multiply-adds, and inner distillation.

Knapsack pruning with inner distillation (Aflalo et al. 2020): every channel is an item with a value
(Taylor importance) and a cost. The 0/1 knapsack is solved exactly, by HiGHS. The slim network is
rebuilt and trained further, while the outputs of its parts are held near those of the network
before.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from lincon import LinconError
from lincon.exporting import merged_copy
from lincon.shapes import Bool, Float
from lincon.tasks.classification.compression.channels import costs, importance, macs, slim
from lincon.tasks.classification.models.resnet import ResNet
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.trained.deploying import images_of

SHARE = 0.6
"""Share of the multiply-adds that is left."""
BATCHES = 32
"""Batches of training images for the importance."""
GAMMA = 0.2
"""Weight of the distillation against the loss."""
ROUNDS = 12
"""Halvings of the interval in the search for the items' budget."""


def solve(
    worth: Float[np.ndarray, " items"], cost: Float[np.ndarray, " items"], budget: float
) -> Bool[np.ndarray, " items"]:
    """The subset of items with the largest total worth whose cost is at most ``budget``; exact.

    >>> solve(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0]), budget=3.0).tolist()
    [True, True, False]
    """
    if not np.isfinite(worth).all():
        raise LinconError(
            "The importance of channels is not finite: the training before diverged; lower the "
            "learning rate."
        )
    # Presolving takes longer than the solution of one row.
    solution = milp(
        -worth / max(worth.max(), 1e-300),
        constraints=LinearConstraint(cost[None] / cost.max(), ub=budget / cost.max()),
        integrality=np.ones(len(worth)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0, "presolve": False},
    )
    if solution.x is None:
        raise LinconError(
            f"A knapsack of {len(worth)} items and budget {budget:.3g} has no solution: "
            f"{solution.message}"
        )
    taken: np.ndarray = solution.x > 0.5
    return taken


def chosen(
    worth: Mapping[str, Tensor], cost: Mapping[str, float], budget: float
) -> dict[str, Tensor]:
    """Masks of the channels that fit the budget; every group keeps at least its best channel."""
    values = np.concatenate([group.numpy() for group in worth.values()])
    prices = np.concatenate([np.full(len(group), cost[name]) for name, group in worth.items()])
    taken = torch.from_numpy(solve(values, prices, budget))
    masks = {}
    parts = torch.split_with_sizes(taken, [len(group) for group in worth.values()])
    for (name, group), mask in zip(worth.items(), parts, strict=True):
        masks[name] = mask if bool(mask.any()) else torch.arange(len(group)) == group.argmax()
    return masks


def fit(model: ResNet, data: Data, share: float = SHARE) -> dict[str, Tensor]:
    """Masks with which the slim network has at most ``share`` of the multiply-adds, and nearly so.

    Without a channel, the layers that read it become cheaper too, which the costs of single items
    leave out. So the budget of the items is searched by halving, and torch's counter gives the
    multiply-adds of the slim network.
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
    """Masks that leave a network without generated weights ``share`` of the multiply-adds."""
    whole = macs(plain, images)
    total = sum(cost[name] * len(group) for name, group in worth.items())
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
    indices = list(range(len(split)))
    starts = range(0, min(len(split), BATCHES * data.batch), data.batch)
    batches = [split[indices[start : start + data.batch]] for start in starts]
    return [data.prepared(batch, training=False) for batch in batches]


class Distillation(nn.Module):
    """Holds the outputs of a slim network's parts near those of its teacher, the network before.

    A learned linear map takes the channels of each part (stem, stages, head) to the teacher's. The
    penalty is the mean over the parts of the mean squared error. The teacher is not a submodule, so
    it is neither trained nor saved.
    """

    def __init__(self, model: ResNet, teacher: nn.Module, masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.__dict__["teacher"] = teacher.eval().requires_grad_(False)
        self.outputs: dict[str, Tensor] = {}
        # In a dictionary: a tensor that is a plain attribute counts as part of a model's state.
        self.batch: dict[str, Tensor] = {}
        streams = {"stem": masks["stream.0"]} | {
            f"body.{n}": masks[f"stream.{n}"] for n in range(len(model.body))
        }
        self.maps = nn.ModuleDict({_key(part): _placing(mask) for part, mask in streams.items()})
        self.handles = [model.register_forward_pre_hook(self._record_images)]
        for part in (*streams, "head"):
            hook = partial(_record_output, self.outputs, part)
            self.handles.append(model.get_submodule(part).register_forward_hook(hook))

    def _record_images(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.batch["images"] = inputs[0]

    def penalty(self) -> Float[Tensor, ""]:
        """The penalty for the last batch that the model saw."""
        targets = self._targets(tuple(self.outputs))
        losses = []
        for part, output in self.outputs.items():
            mapped = self.maps[_key(part)](output) if _key(part) in self.maps else output
            losses.append(nn.functional.mse_loss(mapped, targets[part]))
        return GAMMA * torch.stack(losses).mean()

    def _targets(self, parts: tuple[str, ...]) -> dict[str, Tensor]:
        """The outputs of the teacher's parts for the last batch."""
        # The model may have moved since, and its teacher does not move with it.
        teacher = self.__dict__["teacher"].to(self.batch["images"])
        outputs: dict[str, Tensor] = {}
        handles = [
            teacher.get_submodule(part).register_forward_hook(
                partial(_record_output, outputs, part)
            )
            for part in parts
        ]
        with torch.no_grad():
            teacher(self.batch["images"])
        for handle in handles:
            handle.remove()
        return outputs

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()


def _record_output(
    outputs: dict[str, Tensor], part: str, module: nn.Module, inputs: Any, output: Tensor
) -> None:
    outputs[part] = output


def _key(part: str) -> str:
    return part.replace(".", "_")


def _placing(mask: Tensor) -> nn.Conv2d:
    """A learned linear map from the kept channels to all; at first it puts each in its place."""
    layer = nn.Conv2d(int(mask.sum()), len(mask), 1, bias=False)
    places = torch.eye(len(mask))[:, mask]
    with torch.no_grad():
        layer.weight.copy_(rearrange(places, "all kept -> all kept 1 1"))
    return layer
