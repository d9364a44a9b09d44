"""Steps and inference of constrained models, in turn with the same models unconstrained.

    python -m benchmarks.steps --threads 1 --generators ring hash kronecker

In every round each model takes one step (zero_grad, forward, backward, SGD); then, in other rounds,
one forward without gradients of weights that do not change. A cell is the time as a multiple of the
unconstrained model's: the median of all rounds, and in brackets the quartiles. Freed memory stays in
the process, as in training.
--keep writes a folder under benchmarks/results.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor, nn

import lincon
from benchmarks.results import Table
from benchmarks.step import build
from lincon.recycling import keep_pages

DOF = 0.1
MODES = "model", "layer"


class LastOfLSTM(nn.Module):
    """An LSTM of 128 whose last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.LSTM(32, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.memory(x)[0][:, -1])
        return logits


def mlp() -> tuple[nn.Module, Tensor]:
    """Three layers of 64, batch 32."""
    layers = nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    return nn.Sequential(*layers), torch.randn(32, 64)


def cnn() -> tuple[nn.Module, Tensor]:
    """Convolutions to 16 and 32 channels, batch 64 of 32 x 32."""
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *pooled), torch.randn(64, 3, 32, 32)


def transformer() -> tuple[nn.Module, Tensor]:
    """Four layers of 128, batch 8 of 32 tokens."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return nn.Sequential(encoder), torch.randn(8, 32, 128)


def lstm() -> tuple[nn.Module, Tensor]:
    """An LSTM of 128, batch 16 of 20 steps."""
    return LastOfLSTM(), torch.randn(16, 20, 32)


def resnet18(batch: int) -> tuple[nn.Module, Tensor]:
    """A ResNet-18 for images of 32 x 32."""
    return build(18, "vanilla", DOF), torch.randn(batch, 3, 32, 32)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "transformer": transformer,
    "transformer, compiled": transformer,
    "lstm": lstm,
    "resnet18, batch 64": partial(resnet18, 64),
    "resnet18, batch 8": partial(resnet18, 8),
}


Works = dict[str, Callable[[], Any]]
"""What a model does, by kind of work."""
Times = dict[str, list[float]]
"""The seconds of each round, by kind of work."""


def works(model: nn.Module, x: Tensor) -> Works:
    """A step and an inference."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            model(x)

    return {"step": step, "inference": infer}


def everything(name: str, generators: list[str]) -> dict[str, Works]:
    """What is timed, by model: plain, or generator and mode."""
    every: dict[str, Works] = {}
    is_compiled = name.endswith("compiled")
    modes = MODES[:1] if is_compiled else MODES
    for each in ["plain", *(f"{g} {mode}" for g in generators for mode in modes)]:
        torch.manual_seed(0)
        model, x = MODELS[name]()
        if each != "plain":
            generator, mode = each.split()
            lincon.constrain(model, generator, dof=DOF, materialize=mode)
        every[each] = works(torch.compile(model) if is_compiled else model, x)
    return every


def rounds(every: dict[str, Works], seconds: float) -> dict[str, Times]:
    """The seconds of each round, by model and kind of work; the first three rounds are dropped."""
    times: dict[str, Times] = {each: {kind: [] for kind in work} for each, work in every.items()}
    for kind in next(iter(every.values())):
        number, end = 0, time.perf_counter() + seconds
        while number < 6 or time.perf_counter() < end:
            for each in every:
                start = time.perf_counter()
                every[each][kind]()
                times[each][kind].append(time.perf_counter() - start)
            number += 1
    return {each: {kind: taken[3:] for kind, taken in own.items()} for each, own in times.items()}


def cell(own: list[float], plain: list[float]) -> str:
    """Multiples of the plain model's time of the same round: median and quartiles."""
    low, middle, high = quantiles([a / b for a, b in zip(own, plain, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def medians(own: Times, reference: Times, name: str) -> dict[str, list[float]]:
    """Quartiles of seconds by kind of work, and those of the reference, which is called ``name``."""
    return {kind: quantiles(own[kind], n=4) for kind in own} | {
        f"{name} {kind}": quantiles(reference[kind], n=4) for kind in reference
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--generators", nargs="+", default=["ring", "hash"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of each kind of work of each model"
    )
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    keep_pages()
    table = Table(["threads", "model", "constrained", "step / plain", "inference / plain"])
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.models:
            times = rounds(everything(name, options.generators), options.seconds)
            plain = times.pop("plain")
            for each, own in times.items():
                cells = [cell(own[kind], plain[kind]) for kind in plain]
                what = {"threads": threads, "model": name, "constrained": each}
                table.add([threads, name, each, *cells], {**what, **medians(own, plain, "plain")})
    if options.keep:
        title = (
            f"Steps and inference at {DOF:.0%} of the weights, as multiples of the plain model's"
        )
        table.keep("steps", title)


if __name__ == "__main__":
    main()
