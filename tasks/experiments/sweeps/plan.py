"""What an experiment would train, without training it: DoF, files, and the time that it may take."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

import lincon
from lincon.tasks.experiments.schemes.body import count_parameters
from lincon.tasks.experiments.sweeps.report import Result
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.models import build, dof_of, scheme_of
from lincon.tasks.experiments.training.recipe import Cell

HEADER = (
    "model",
    "scheme",
    "dof",
    "total parameters",
    "file bytes",
    "making weights",
    "runs",
    "left",
    "time left",
)


@dataclass(frozen=True)
class Planned:
    """The trainings of a model, a scheme and a DoF.

    Args:
        cell: the first of them.
        dof: free numbers in the body; of a scheme of several phases, those that are asked for.
        total: all parameters of the model as it is first trained.
        file_bytes: size of the file of that model.
        making: what a forward takes to make the weights, beside the model itself.
        runs: how many trainings.
        left: how many of them have not ended.
        seconds: about what one of them takes.
    """

    cell: Cell
    dof: int
    total: int
    file_bytes: int
    making: str
    runs: int
    left: int
    seconds: float

    def numbers(self) -> dict[str, Any]:
        """The line as plain JSON."""
        names = {"model": self.cell.model, "scheme": self.cell.scheme, "asked": self.cell.dof}
        return names | {name: value for name, value in asdict(self).items() if name != "cell"}

    def row(self) -> tuple[str, ...]:
        """The line of a table, in the order of `HEADER`."""
        return (
            self.cell.model,
            self.cell.scheme,
            f"{self.dof:,}",
            f"{self.total:,}",
            f"{self.file_bytes:,}",
            self.making,
            str(self.runs),
            str(self.left),
            clock(self.left * self.seconds),
        )


def plan(sweep: Sweep) -> list[Planned]:
    """The trainings of a sweep, by model, scheme and DoF. Nothing is trained, nothing written.

    A scheme of several phases is planned by its first, so its file may become smaller.

    Raises:
        LinconError: whatever `Sweep.run` refuses before the first training.
    """
    missing = {cell.name for cell in sweep.check()}
    groups: dict[Any, list[Cell]] = {}
    for cell in sweep.cells:
        groups.setdefault((cell.model, cell.scheme, str(cell.dof)), []).append(cell)
    return [_planned(sweep, cells, missing) for cells in groups.values()]


def preview(*sweeps: Sweep) -> Result:
    """The plan of sweeps as a table; its notes say how long all of it may take.

    The last sweep is what the others prepare; they have its settings.
    """
    planned = [each for sweep in sweeps for each in plan(sweep)]
    left, cells = sum(each.left for each in planned), sum(len(sweep.cells) for sweep in sweeps)
    sweep = sweeps[-1]
    note = (
        f"{left} of {cells} trainings left, about {time_left(planned, sweep.parallel)} "
        f"(from one timed step of each; {sweep.parallel} at a time); nothing was trained or written"
    )
    return Result(
        title=f"To be trained: {sweep.subject}",
        header=HEADER,
        texts=[each.row() for each in planned],
        numbers={"table": [each.numbers() for each in planned]},
        figure=None,
        notes=[note],
    )


def time_left(planned: Sequence[Planned], parallel: int) -> str:
    """What all trainings that have not ended take together, so many at a time."""
    return clock(sum(each.left * each.seconds for each in planned) / parallel)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725), clock(0.4)
    ('1:02:05', '0:00:01')
    """
    whole = max(1, round(seconds)) if seconds else 0
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _planned(sweep: Sweep, cells: Sequence[Cell], missing: set[str]) -> Planned:
    cell, shape = cells[0], sweep.data.shape
    model = build(cell, shape)
    with TemporaryDirectory() as folder:
        file_bytes = lincon.save(model, Path(folder) / "model.safetensors")
    scheme, cost = scheme_of(cell), lincon.summary(model).cost
    return Planned(
        cell=cell,
        # Of several phases the last makes the model what its DoF are counted of.
        dof=scheme.dof(model) if len(scheme.phases) == 1 else dof_of(cell, shape),
        total=count_parameters(model),
        file_bytes=file_bytes,
        making="-" if cost is None else f"{cost.ratio:,.2f} x the model",
        runs=len(cells),
        left=sum(each.name in missing for each in cells),
        seconds=_seconds(sweep, cell, model),
    )


def _seconds(sweep: Sweep, cell: Cell, model: nn.Module) -> float:
    """What one training takes: its steps as the timed one, and a test after every epoch."""
    data, recipe = sweep.data, sweep.recipe
    phase = scheme_of(cell).phases[0]
    if phase.begin is not None:
        phase.begin(model, dof_of(cell, data.shape), data)
    device = _device(sweep)
    learner = find_task(cell.task).learner(model, data, recipe, phase, cell.seed, 0).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    batches, tests = data.train_dataloader(), data.val_dataloader()

    def step() -> None:
        batch = data.prepared(move_data_to_device(next(iter(batches)), device), training=True)
        loss = learner.loss(batch)
        (loss if phase.penalty is None else loss + phase.penalty(model)).backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def test() -> None:
        batch = data.prepared(move_data_to_device(next(iter(tests)), device), training=False)
        learner.update_metric(batch)

    of_epoch = len(batches) * _timed(step, device)
    learner.eval()
    of_test = len(tests) * _timed(test, device)
    return recipe.epochs * (of_epoch + of_test)


def _timed(work: Any, device: torch.device) -> float:
    """Seconds of the fastest of three calls, after two that warm up."""
    times = []
    for _ in range(5):
        start = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - start)
    return min(times[2:])


def _device(sweep: Sweep) -> torch.device:
    """Where the Trainer would train: a GPU, if there is one and it is not asked for another."""
    asked = sweep.setup.trainer.get("accelerator", "auto")
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    uses_gpu = asked in ("auto", "gpu", "cuda") and torch.cuda.is_available() and not is_hidden
    return torch.device("cuda" if uses_gpu else "cpu")
