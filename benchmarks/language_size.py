"""Bits per byte against the bytes of a file: what a language model costs to store.

    python -m benchmarks.language_size --plan --root HTML
    python -m benchmarks.language_size --root HTML --out FOLDER    # goes on where it was
    python -m benchmarks.language_size --root HTML --out FOLDER --render

Each model is trained once for each seed, and measured in four forms: float32, float16, and 8 and 4
bits, entropy-coded. In the last two the free numbers, or a dense model's matrices, are integers; norms
and biases that are stored stay as they are. A file holds what was trained (`lincon.save(...,
only="trained")`): a W₀ from a seed, and frozen random maps, are in none. Every form is measured by the
model that its file is written from.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import torch
from lightning import seed_everything
from torch import Tensor, nn

import lincon
from benchmarks.cells import Cells, Values
from benchmarks.results import keep
from lincon.recycling import keep_pages
from lincon.tasks.experiments.training.learner import evaluate
from lincon.tasks.experiments.training.recipe import Recipe, open_data
from lincon.tasks.experiments.training.trainer import fit
from lincon.tasks.language.learner import Reader
from lincon.tasks.language.models import architecture
from lincon.tasks.language.task import PRESETS

MODEL = "gpt-micro"
FORMS = {"float32": 32, "float16": 16, "8 bits": 8, "4 bits": 4}
DOFS = 0.01, 0.03, 0.1, 0.3
WIDTHS = 0.125, 0.25, 0.5, 1.0
RANKS = 1, 2, 4
HEADER = "model", "trained numbers", "form", "file bytes", "bits / byte", "seeds"

Make = Callable[[int], nn.Module]
"""seed -> an untrained model."""


class Adapted(nn.Module):
    """A linear layer whose matrix is frozen at its random start, plus a product of rank ``rank``."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape
        self.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        self.bias = layer.bias
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight + self.up @ self.down, self.bias)


def dense(width: float, seed: int, context: int) -> nn.Module:
    """A narrower model, every number of it trained."""
    return architecture(MODEL)(context, width=width)


def ring(dof: float, seed: int, context: int) -> nn.Module:
    """All matrices, embeddings too, from one ring; norms and biases are free."""
    model = architecture(MODEL)(context)
    lincon.constrain(model, "ring", dof=dof, seed=seed)
    return model


def from_seed(dof: float, seed: int, context: int) -> nn.Module:
    """Every tensor, norms and biases too, at W₀ from the seed plus one ring: the file is the ring."""
    model = architecture(MODEL)(context)
    names = [name for name, _ in model.named_parameters()]
    lincon.constrain(model, "ring", dof=dof, seed=seed, where=names, offset="seed")
    return model


def adapted(rank: int, seed: int, context: int) -> nn.Module:
    """Random linear maps that stay as they are, with adapters; embeddings, norms, biases are free."""
    model = architecture(MODEL)(context)
    for name, module in list(model.body.named_modules()):
        if isinstance(module, nn.Linear):
            path, _, attribute = name.rpartition(".")
            setattr(model.body.get_submodule(path), attribute, Adapted(module, rank))
    return model


def makes(context: int) -> dict[str, Make]:
    """Every model by name."""
    kinds: list[tuple[str, Callable[..., nn.Module], tuple[float, ...]]] = [
        ("dense, width", dense, WIDTHS),
        ("ring, dof", ring, DOFS),
        ("ring from a seed, dof", from_seed, DOFS),
        ("adapters on random maps, rank", adapted, RANKS),
    ]
    return {
        f"{name} {number:g}": partial(make, number, context=context)
        for name, make, numbers in kinds
        for number in numbers
    }


def in_form(model: nn.Module, bits: int, file: Path) -> tuple[nn.Module, int]:
    """A trained model in a form, written to a file, and the bytes of the file."""
    shape = copy.deepcopy(model)
    if bits < 16 and not lincon.constraints(shape):
        # Quantising is of free vectors: a dense matrix is one whose G is the identity.
        lincon.constrain(shape, "identity")
    if bits < 16:
        lincon.quantize(shape, bits=bits)
    if bits == 16:
        shape.half()
    size = lincon.save(shape, file, only="trained")
    return shape.float() if bits == 16 else shape, size


def measured(make: Make, recipe: Recipe, root: Path | None, seed: int) -> Values:
    """The trained numbers, and for each form the bits per byte on the test part and the file bytes."""
    seed_everything(seed, verbose=False)
    model, data = make(seed), open_data(recipe, seed, root)
    fit(Reader(model, data, recipe, seed=seed), data, recipe.epochs, [])
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    forms = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, bits in FORMS.items():
            read, size = in_form(model, bits, Path(folder) / "model.safetensors")
            score = evaluate(Reader(read, data, recipe), data)["bits_per_byte"]
            forms[name] = {"bits_per_byte": score, "file_bytes": size}
    return {"trained": trained, "forms": forms}


def seconds_of(make: Make, recipe: Recipe, root: Path | None) -> float:
    """About what one model takes, from the fastest of three timed steps."""
    data, model = open_data(recipe, 0, root), make(0)
    reader, batch, times = (
        Reader(model, data, recipe),
        data.train_set[list(range(recipe.batch))],
        [],
    )
    for _ in range(3):
        start = time.perf_counter()
        reader.loss(batch).backward()
        times.append(time.perf_counter() - start)
    steps = recipe.epochs * (len(data.train_set) // recipe.batch)
    tests = (recipe.epochs + len(FORMS)) * len(data.test_set) / recipe.batch / 3
    return min(times) * (steps + tests)


def rows_of(kept: dict[str, list[Values]]) -> list[tuple[Any, ...]]:
    """A line for each model and form, means over the seeds that have ended."""
    rows = []
    for name, form in product(kept, FORMS):
        found = [values["forms"][form] for values in kept[name]]
        if found:
            size, bits = (
                mean(each[key] for each in found) for key in ("file_bytes", "bits_per_byte")
            )
            trained = f"{kept[name][0]['trained']:,}"
            rows.append((name, trained, form, f"{size:,.0f}", f"{bits:.4f}", len(found)))
    return rows


def draw(kept: dict[str, list[Values]], path: Path) -> None:
    """Bits per byte against file bytes, a line for each kind of model and form."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    kinds = dict.fromkeys(name.rpartition(" ")[0].partition(",")[0] for name in kept)
    for number, (kind, form) in enumerate(product(kinds, FORMS)):
        points = [
            (mean(each["forms"][form]["file_bytes"] for each in values),
             mean(each["forms"][form]["bits_per_byte"] for each in values))
            for name, values in kept.items()
            if values and name.partition(",")[0] == kind
        ]  # fmt: skip
        if points:
            colour, style = f"C{number // len(FORMS)}", [":", "-.", "--", "-"][number % len(FORMS)]
            axes.plot(*zip(*sorted(points), strict=True), style, color=colour, marker=".",
                      label=f"{kind}, {form}")  # fmt: skip
    axes.set(xscale="log", xlabel="file bytes", ylabel="test bits / byte")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def print_hours(every: dict[str, Make], left: list[str], recipe: Recipe, root: Path | None) -> None:
    """Say what each model takes, and all cells that are left together."""
    seconds = {name: seconds_of(make, recipe, root) for name, make in every.items()}
    for name, each in seconds.items():
        print(f"{name:<36} {each / 60:6.1f} minutes a seed, {left.count(name)} left")
    hours = sum(seconds[name] for name in left) / 3600
    print(f"{len(left)} cells left, about {hours:.1f} hours; nothing was trained")


def render(every: dict[str, Make], cells: Cells, seeds: int) -> None:
    """Keep the cells that are there as a table and a picture under benchmarks/results."""
    found = {name: [cells.get(f"{name}-{seed}") for seed in range(seeds)] for name in every}
    kept = {name: [each for each in values if each] for name, values in found.items()}
    title = "Bits per byte against file bytes"
    folder = keep("language-size", title, HEADER, rows_of(kept), kept)
    draw(kept, folder / "picture.png")
    print(f"written to {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder html of debian-handbook")
    parser.add_argument("--data", default="handbook")
    parser.add_argument("--out", type=Path, default=Path("runs/language-size"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plan", action="store_true", help="train nothing, say how long it takes")
    parser.add_argument("--render", action="store_true", help="keep what is there under results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()
    recipe = Recipe(
        "language", **{**PRESETS["handbook"], "data": options.data, "epochs": options.epochs}
    )
    every = makes(open_data(recipe, 0, options.root).context)
    cells = Cells(options.out, {"data": options.data, "epochs": options.epochs, "model": MODEL})
    left = [
        (seed, name)
        for seed, name in product(range(options.seeds), every)
        if cells.get(f"{name}-{seed}") is None
    ]
    if options.plan:
        print_hours(every, [name for _, name in left], recipe, options.root)
        return
    for seed, name in [] if options.render else left:
        cells.of(f"{name}-{seed}", partial(measured, every[name], recipe, options.root, seed))
    render(every, cells, options.seeds)


if __name__ == "__main__":
    main()
