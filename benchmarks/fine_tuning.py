"""Fine-tuning side by side: peft's methods and lincon's, with equal numbers of trained numbers.

    python -m benchmarks.fine_tuning --plan --html HTML --fashion FOLDER
    python -m benchmarks.fine_tuning --html HTML --fashion FOLDER --out OUT    # goes on where it was
    python -m benchmarks.fine_tuning --html HTML --fashion FOLDER --out OUT --render

Two settings: a GPT that has read a book in English goes on with a part of the German one, and a ViT of
upright Fashion-MNIST sees it turned by 90 degrees. Each method at each budget is tried with the same
learning rates on nine tenths of the items for adapting, the best by the last tenth; the seeds that are
reported, others than that of the tuning, train at that rate on the same nine tenths. Equal seeds see
equal batches. Needs the extra `interop` (peft).
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from lightning import seed_everything
from torch import nn
from torch.profiler import ProfilerActivity, profile

import lincon
from benchmarks.adapting import METHODS, WITHOUT_BUDGET, Adapted, Places
from benchmarks.cells import Cells, Values
from benchmarks.results import keep
from lincon import LinconError
from lincon.recycling import keep_pages
from lincon.tasks.classification.data.idx import FashionMNIST
from lincon.tasks.classification.data.sets import Batch
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import Task, find_task
from lincon.tasks.experiments.training.learner import evaluate
from lincon.tasks.experiments.training.recipe import Recipe
from lincon.tasks.experiments.training.trainer import fit
from lincon.tasks.language.data.handbook import German, Handbook

BUDGETS = 100, 1_000, 10_000, 100_000
RATES = 3e-4, 1e-3, 3e-3, 1e-2, 3e-2
TUNING_SEED = 1000
QUIET = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0}
HEADER = (
    "setting", "budget", "method", "score", "minus full", "trained", "adapter bytes", "rate",
    "step time / full", "peak / full", "merged differs by",
)  # fmt: skip


class Turned(FashionMNIST):
    """Fashion-MNIST turned by 90 degrees."""

    def prepared(self, batch: Batch, training: bool) -> Batch:
        upright = super().prepared(batch, training)
        return Batch(upright.images.rot90(1, (2, 3)), upright.labels)


@dataclass(frozen=True)
class Setting:
    """What is adapted to what.

    Args:
        recipe: of the adaptation; the pre-training has ``first_epochs`` of it, on all items.
        model: name of the model.
        source: items of the pre-training.
        target: items of the adaptation.
        items: how many of them, a fixed choice.
        first_epochs: of the pre-training.
        root: folder of the data.
        places: in the model.
    """

    recipe: Recipe
    model: str
    source: type[Data]
    target: type[Data]
    items: int
    first_epochs: int
    root: Path | None
    places: Places

    @property
    def task(self) -> Task:
        return find_task(self.recipe.task)

    def untrained(self, data: Data) -> nn.Module:
        return self.task.architecture(self.model)(*data.shape)

    def learner(self, model: nn.Module, data: Data, rate: float, seed: int) -> Any:
        return self.task.learner(model, data, replace(self.recipe, learning_rate=rate), seed=seed)


def settings(html: Path | None, fashion: Path | None) -> dict[str, Setting]:
    """The settings by name."""
    common: dict[str, Any] = {"optimiser": "adam", "schedule": "cycle", "weight_decay": 0.0}
    vit = [f"body.layers.{n}.{part}" for n in range(2) for part in ("linear1", "linear2")]
    return {
        "German after English": Setting(
            Recipe("language", "handbook-de", epochs=3, batch=16, **common),
            "gpt-micro", Handbook, German, 1024, 4, html,
            Places.of_gpt(2),
        ),
        "turned after upright": Setting(
            Recipe("classification", "fashion-mnist", epochs=5, batch=64, **common),
            "vit-micro", FashionMNIST, Turned, 2048, 4, fashion,
            Places(vit, ["*.self_attn.*weight"], ["head"]),
        ),
    }  # fmt: skip


def pretrained(setting: Setting, file: Path) -> nn.Module:
    """The model before the adaptation: trained, or read if it has been."""
    data: Data = setting.source(0, setting.recipe.batch, setting.root)
    seed_everything(0, verbose=False)
    model = setting.untrained(data)
    if file.exists():
        lincon.load(model, file)
        return model
    fit(setting.learner(model, data, 1e-3, 0), data, setting.first_epochs, [], options=QUIET)
    file.parent.mkdir(parents=True, exist_ok=True)
    lincon.save(model, file)
    return model


@cache
def _read(kind: type[Data], batch: int, root: Path | None, count: int) -> Any:
    """The items for adapting, read once."""
    return kind(0, batch, root, count)


def items(setting: Setting, seed: int, *, tuning: bool) -> Data:
    """The items of the adaptation: nine tenths to train, and the last tenth or the test part."""
    data = copy.copy(_read(setting.target, setting.recipe.batch, setting.root, setting.items))
    data.seed, whole, cut = seed, data.train_set, setting.items - setting.items // 10
    data.train_set = whole.subset(torch.arange(cut))
    if tuning:
        data.test_set = whole.subset(torch.arange(cut, setting.items))
    own: Data = data
    return own


@dataclass(frozen=True, eq=False)
class Bench:
    """One setting, with its trained model and the cells that have ended."""

    name: str
    setting: Setting
    base: nn.Module
    cells: Cells

    def attach(self, method: str, budget: int, seed: int) -> Adapted:
        model = copy.deepcopy(self.base)
        return METHODS[method](model, self.setting.places, budget, seed)

    def cell(self, method: str, budget: int, what: str) -> str:
        return f"{self.name}-{method}-{budget}-{what}"

    def score(self, values: dict[str, float]) -> float:
        """The first measure, so that more is better."""
        measure = self.setting.task.measures[0]
        return values[measure.name] * (1 if measure.higher_is_better else -1)

    def train(self, method: str, budget: int, rate: float, seed: int) -> Values:
        """Adapt once: the measures, and what the adapter costs and how exactly it merges."""
        tuning = seed == TUNING_SEED
        data = items(self.setting, seed, tuning=tuning)
        seed_everything(seed, verbose=False)
        try:
            adapted = self.attach(method, budget, seed)
        except LinconError as refusal:
            return {"refused": str(refusal)}
        learner = self.setting.learner(adapted.model, data, rate, seed)
        fit(learner, data, self.setting.recipe.epochs, [], options=QUIET)
        values: Values = {"test": evaluate(learner, data), "trained": adapted.trained}
        return values if tuning else {**values, **_left(adapted, data)}

    def rate(self, method: str, budget: int) -> float | None:
        """The learning rate that is best on the held-out tenth; None if the budget is impossible."""
        scores = {}
        for rate in RATES:
            make = partial(self.train, method, budget, rate, TUNING_SEED)
            found = self.cells.of(self.cell(method, budget, f"rate-{rate:g}"), make)
            if "refused" in found:
                return None
            score = self.score(found["test"])
            scores[rate] = score if score == score else -float("inf")  # NaN: it diverged
        return max(scores, key=lambda rate: scores[rate])

    def run(self, method: str, budget: int, seeds: int) -> None:
        """Every cell of a method at a budget."""
        rate = self.rate(method, budget)
        if rate is None:
            return
        self.cells.of(self.cell(method, budget, "cost"), partial(self.cost, method, budget))
        for seed in range(seeds):
            make = partial(self.train, method, budget, rate, seed)
            values = self.cells.of(self.cell(method, budget, f"seed-{seed}"), make)
            values.setdefault("rate", rate)

    def cost(self, method: str, budget: int) -> Values:
        """Time and peak memory of a step, as multiples of full fine-tuning's."""
        steps = [self.step(method, budget), self.step("full", budget)]
        peaks = [_peak(step) for step, _ in steps]
        times: list[list[float]] = [[], []]
        for _ in range(9):
            for (step, _), own in zip(steps, times, strict=True):
                start = time.process_time()
                step()
                own.append(time.process_time() - start)
        held = [sum(each.numel() * each.element_size() for each in state()) for _, state in steps]
        whole = [peak + own for peak, own in zip(peaks, held, strict=True)]
        return {"time": median(times[0]) / median(times[1]), "peak": whole[0] / whole[1]}

    def step(
        self, method: str, budget: int
    ) -> tuple[Callable[[], None], Callable[[], list[torch.Tensor]]]:
        """A function that trains one step, and one that gives what stays in memory between steps."""
        data = items(self.setting, 0, tuning=True)
        model = self.attach(method, budget, 0).model
        learner = self.setting.learner(model, data, 1e-3, 0)
        batch = data.prepared(data.train_set[list(range(data.batch))], training=False)
        trained = [each for each in model.parameters() if each.requires_grad]
        optimiser = torch.optim.AdamW(trained, 1e-3)

        def step() -> None:
            optimiser.zero_grad()
            learner.loss(batch).backward()
            optimiser.step()

        def kept() -> list[torch.Tensor]:
            states = [each for state in optimiser.state.values() for each in state.values()]
            return [*model.parameters(), *model.buffers(), *states]

        step()
        return step, kept


def _peak(step: Callable[[], None]) -> int:
    """The most bytes that a step had allocated at once, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@torch.inference_mode()
def _left(adapted: Adapted, data: Data) -> Values:
    """The adapter's bytes, and by how much the merged model's outputs differ, of the largest."""
    model = adapted.model.eval()
    batch = data.prepared(data.test_set[list(range(16))], training=False)[0]
    before = model(batch)
    with tempfile.TemporaryDirectory() as folder:
        size = adapted.file_bytes(Path(folder))
    after = adapted.merged(copy.deepcopy(model)).eval()(batch)
    return {"file_bytes": size, "merged": float((after - before).abs().max() / before.abs().max())}


def plan_of(benches: Sequence[Bench], budgets: Sequence[int]) -> list[tuple[Bench, str, int]]:
    """Every method at every budget, budget after budget; those without one come once."""
    full = [(bench, name, 0) for bench, name in product(benches, WITHOUT_BUDGET)]
    others = [name for name in METHODS if name not in WITHOUT_BUDGET]
    return full + [(b, name, budget) for budget, b, name in product(budgets, benches, others)]


def print_hours(plan: Sequence[tuple[Bench, str, int]], seeds: int) -> None:
    """Say what is left, each cell as long as the steps of `full` and its evaluation."""
    total, left = 0.0, 0
    for bench in dict.fromkeys(bench for bench, *_ in plan):
        step, _ = bench.step("full", 0)
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        recipe = bench.setting.recipe
        steps = recipe.epochs * (bench.setting.items * 9 // 10 // recipe.batch)
        test = len(items(bench.setting, 0, tuning=False).test_set) / recipe.batch / 3
        names = [(method, budget) for other, method, budget in plan if other is bench]
        whats = [*((f"rate-{rate:g}", steps) for rate in RATES),
                 *((f"seed-{seed}", steps + test) for seed in range(seeds))]  # fmt: skip
        missing = [own for (method, budget), (what, own) in product(names, whats)
                   if bench.cells.get(bench.cell(method, budget, what)) is None]  # fmt: skip
        print(f"{bench.name}: {seconds:.3f} s a step, {len(missing)} trainings left")
        total, left = total + sum(missing) * seconds, left + len(missing)
    print(f"{left} trainings left, about {total / 3600:.1f} hours; nothing was trained")


def render(plan: Sequence[tuple[Bench, str, int]], seeds: int) -> None:
    """Keep the cells that are there as a table under benchmarks/results."""
    rows, numbers = [], {}
    for bench, method, budget in plan:
        found = [bench.cells.get(bench.cell(method, budget, f"seed-{s}")) for s in range(seeds)]
        full = [bench.cells.get(bench.cell("full", 0, f"seed-{s}")) for s in range(seeds)]
        both = [(a, b) for a, b in zip(found, full, strict=True) if a and b]
        cost = bench.cells.get(bench.cell(method, budget, "cost"))
        if both and cost:
            rows.append(_row(bench, method, budget, both, cost))
            numbers[bench.cell(method, budget, "")] = {"runs": [a for a, _ in both], "cost": cost}
    print(f"written to {keep('fine-tuning', 'Fine-tuning side by side', HEADER, rows, numbers)}")


def _row(
    bench: Bench, method: str, budget: int, both: Sequence[tuple[Values, Values]], cost: Values
) -> tuple[Any, ...]:
    measure = bench.setting.task.measures[0]
    scores, fulls = ([measure.factor * each["test"][measure.name] for each in side]
                     for side in zip(*both, strict=True))  # fmt: skip
    differences = [a - b for a, b in zip(scores, fulls, strict=True)]
    first = both[0][0]
    return (
        bench.name, f"{budget:,}" if budget else "–", method, _spread(scores, measure.digits),
        _spread(differences, measure.digits), f"{first['trained']:,}", f"{first['file_bytes']:,}",
        f"{bench.rate(method, budget):g}", f"{cost['time']:.2f}", f"{cost['peak']:.2f}",
        f"{first['merged']:.1g}",
    )  # fmt: skip


def _spread(values: Sequence[float], digits: int) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--html", type=Path, help="folder html of debian-handbook")
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs/fine-tuning"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--settings", nargs="+", help="some of them, by name; all may share --out")
    parser.add_argument("--plan", action="store_true", help="adapt nothing, say how long it takes")
    parser.add_argument("--render", action="store_true", help="keep what is there under results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # In evaluation torch's encoder reads the weights itself, past what peft puts around a layer.
    torch.backends.mha.set_fastpath_enabled(False)
    keep_pages()
    cells = Cells(options.out, {"rates": RATES, "torch": torch.__version__})
    benches = []
    for name, setting in settings(options.html, options.fashion).items():
        if name not in (options.settings or [name]):
            continue
        file = options.out / "pretrained" / f"{name.replace(' ', '-')}.safetensors"
        untrained = setting.untrained(items(setting, 0, tuning=True))
        benches.append(
            Bench(name, setting, untrained if options.plan else pretrained(setting, file), cells)
        )
    plan = plan_of(benches, options.budgets)
    if options.plan:
        print_hours(plan, options.seeds)
        return
    for bench, method, budget in [] if options.render else plan:
        bench.run(method, budget, options.seeds)
    render(plan, options.seeds)


if __name__ == "__main__":
    main()
