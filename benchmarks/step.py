"""One training step of a ResNet on CIFAR-shaped batches, constrained against vanilla: seconds and peak memory.

    python benchmarks/step.py --depth 34 --mode layer --optimizer adam --steps 6

prints one line of JSON. Each mode runs in a process of its own, since peak memory is that of a process; pairs of
times that are to be compared are taken in one process, in turn, by `compare`.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import lincon
from lincon.recycling import keep_pages
from lincon.tasks.classification.models import ResNet
from lincon.tasks.experiments.schemes.body import body_weights

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def build(depth: int, mode: str, dof: float, device: str = "cpu") -> nn.Module:
    """A ResNet for 3x32x32 images and 100 classes; ``mode``: "vanilla", or how a ring materializes."""
    torch.manual_seed(0)
    model = ResNet(3, 100, widths=(64, 128, 256, 512), blocks=BLOCKS[depth]).to(device)
    if mode != "vanilla":
        lincon.constrain(model, "ring", dof=dof, where=body_weights(model), materialize=mode)
    return model


def stepper(
    model: nn.Module, optimizer: str, batch: int, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """A function that does one training step on random images."""
    device = next(model.parameters()).device
    images, labels = (
        torch.randn(batch, 3, 32, 32, device=device),
        torch.randint(0, 100, (batch,), device=device),
    )
    made = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=5e-4),
        "sgd-fused": lambda p: torch.optim.SGD(
            p, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True
        ),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-4),
        "adam-fused": lambda p: torch.optim.Adam(p, lr=1e-4, fused=True),
    }[optimizer](model.parameters())

    def step() -> None:
        made.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        made.step()

    return step


def compare(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Median seconds of each step, taken in turn."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(repeats + 1):
        for step, mine in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if number:
                mine.append(time.perf_counter() - start)
    return [statistics.median(mine) for mine in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=34)
    parser.add_argument(
        "--mode", nargs="+", default=["vanilla"], choices=["vanilla", "model", "layer"]
    )
    parser.add_argument(
        "--optimizer", default="adam", choices=["sgd", "sgd-fused", "adam", "adam-fused"]
    )
    parser.add_argument("--dof", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--keep-pages", action="store_true", help="as the training commands do")
    options = parser.parse_args()
    if options.keep_pages and not keep_pages():
        parser.error("this C library cannot be asked to keep pages")
    steps = [
        stepper(build(options.depth, mode, options.dof), options.optimizer, options.batch)
        for mode in options.mode
    ]
    seconds = compare(steps, options.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps({"seconds": dict(zip(options.mode, seconds, strict=True)), "peak_bytes": peak})
    )


if __name__ == "__main__":
    main()
