"""One training step of a ResNet on CIFAR-shaped batches: seconds and peak memory.

    python -m benchmarks.step --depth 34 --mode vanilla layer --optimizer adam --steps 6

prints one line of JSON. Modes that are named together step in turn in one process, so that their
times compare. Peak memory is that of the process: for it, name one mode alone.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

import lincon
from lincon.recycling import keep_pages
from lincon.tasks.classification.models import ResNet
from lincon.tasks.experiments.schemes.body import body_weights

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
MODES = ["vanilla", "model", "layer"]
"""No constraint, or how a ring materializes."""

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: _sgd(parameters),
    "sgd-fused": lambda parameters: _sgd(parameters, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-4),
    "adam-fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, fused=True),
}


def _sgd(parameters: Iterable[nn.Parameter], fused: bool | None = None) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=fused)


def build(depth: int, mode: str, dof: float, device: str = "cpu") -> nn.Module:
    """A ResNet for 3 x 32 x 32 images and 100 classes, whose blocks a ring generates if not vanilla."""
    torch.manual_seed(0)
    model: nn.Module = ResNet(3, 100, widths=(64, 128, 256, 512), blocks=BLOCKS[depth]).to(device)
    if mode != "vanilla":
        lincon.constrain(model, "ring", dof=dof, where=body_weights(model), materialize=mode)
    return model


def stepper(
    model: nn.Module, optimizer: str, batch: int, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """A function that does one training step on random images."""
    device = next(model.parameters()).device
    images = torch.randn(batch, 3, 32, 32, device=device)
    labels = torch.randint(0, 100, (batch,), device=device)
    optimiser = OPTIMIZERS[optimizer](model.parameters())

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()

    return step


def unpack_step(
    unpack: Callable[[Tensor], Tensor], free: Tensor, grad: Tensor
) -> Callable[[], None]:
    """Unpack and adjoint through autograd, as in a training step."""
    leaf = free.clone().requires_grad_()

    def run() -> None:
        leaf.grad = None
        unpack(leaf).backward(grad)

    return run


def compare(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Median seconds of each step, taken in turn; a first turn warms up."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(repeats + 1):
        for step, seconds in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if turn:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=34, choices=BLOCKS)
    parser.add_argument("--mode", nargs="+", default=["vanilla"], choices=MODES)
    parser.add_argument("--optimizer", default="adam", choices=OPTIMIZERS)
    parser.add_argument("--dof", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--keep-pages", action="store_true", help="as the training commands do")
    options = parser.parse_args()
    if options.keep_pages and not keep_pages():
        parser.error("this C library cannot be asked to keep pages")
    models = [build(options.depth, mode, options.dof) for mode in options.mode]
    steps = [stepper(model, options.optimizer, options.batch) for model in models]
    seconds = dict(zip(options.mode, compare(steps, options.steps), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
