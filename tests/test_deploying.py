"""Models on their way out: pruned and trained on, exported, in eight bits; the commands and the paper's tables."""

import json

import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file
from torch import nn

import lincon
from lincon.exporting import _gap, export, merged_copy
from lincon.int8 import stored_bytes, to_int8
from lincon.tasks.classification.compression.pruning import PRUNED
from lincon.tasks.classification.data.digits import Digits
from lincon.tasks.classification.models import MODELS
from lincon.tasks.classification.tables import TABLES
from lincon.tasks.experiments.schemes.body import body_weights, count_parameters
from lincon.tasks.experiments.trained.deploying import images_of
from lincon.tasks.experiments.trained.evaluate import measure
from lincon.tasks.experiments.training.models import load
from lincon.tasks.experiments.training.recipe import Cell, Recipe
from lincon.tasks.experiments.training.record import reload
from lincon.tasks.experiments.training.training import train
from tests.models import Tied, convnet, images
from tests.test_cli import call, refused

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


def constrained():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.3)
    return model.eval()


FORMS = {
    "constrained": lambda model: None,
    "pruned": lambda model: lincon.prune(model, 0.5),
    "quantised": lambda model: lincon.quantize(model, 8),
    "merged": lincon.merge,
}


# Export.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt2", ".onnx"])
def test_what_is_exported_computes_the_same_without_lincon(form, suffix, tmp_path):
    model = constrained()
    FORMS[form](model)
    path, x = tmp_path / f"model{suffix}", images(5)
    expected = model(x)
    gap = export(model, path, images())
    assert gap <= (0 if suffix == ".safetensors" else 1e-4)
    if suffix == ".safetensors":
        plain = convnet().eval()
        plain.load_state_dict(load_file(path))
        assert torch.equal(plain(x), expected)
    elif suffix == ".pt2":
        torch.testing.assert_close(torch.export.load(path).module()(x), expected)
    else:
        evaluator = ReferenceEvaluator(onnx.load(path))
        (found,) = evaluator.run(None, {evaluator.input_names[0]: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert torch.equal(model(x), expected) and bool(lincon.constraints(model)) == (form != "merged")


def test_tied_weights_are_exported_once_and_stay_tied(tmp_path):
    model = Tied().eval()
    lincon.constrain(model, "ring", dof=0.5)
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert export(model, tmp_path / "model.safetensors", tokens) == 0
    assert len(load_file(tmp_path / "model.safetensors")) == 3


@pytest.mark.parametrize(
    ("name", "example", "says"),
    [
        ("model.bin", images(), r"\.onnx"),
        ("model.pt2", images(1), "two or more"),
        ("model.pt2", torch.tensor(1.0), "two or more"),
        ("nowhere/model.pt2", images(), "not a folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(name, example, says, tmp_path):
    with pytest.raises(lincon.LinconError, match=says):
        export(constrained(), tmp_path / name, example)
    assert not list(tmp_path.iterdir())


def test_an_export_that_computes_something_else_is_not_kept(tmp_path):
    class Fickle(nn.Module):
        """Never the same twice, as no program of it can be."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.weight * self.calls

    with pytest.raises(lincon.LinconError, match="differ"):
        export(Fickle(), tmp_path / "model.safetensors", torch.ones(2, 3))
    assert not list(tmp_path.iterdir())


# Eight bits.


def test_an_eight_bit_model_computes_nearly_the_same_from_a_quarter_of_the_bytes():
    torch.manual_seed(0)
    model = MODELS["resnet-small"](1, 10, 8).eval()
    lincon.constrain(model, "ring", dof=0.5, where=body_weights(model))
    x = torch.randn(32, 1, 8, 8)
    program = to_int8(model, [x, x])
    expected = model(x)
    assert (program(x) - expected).abs().max() < 0.05 * expected.abs().max()
    assert program(x[:3]).shape == (3, 10) and lincon.constraints(model)
    assert stored_bytes(program) < 0.45 * stored_bytes(merged_copy(model))
    weights = [t for t in program.state_dict().values() if t.numel() > 500]
    assert weights and all(t.dtype == torch.int8 for t in weights)


@pytest.mark.parametrize("batches", [[], [torch.randn(1, 1, 8, 8)]])
def test_eight_bits_need_something_to_calibrate_on(batches):
    with pytest.raises(lincon.LinconError, match="Calibration"):
        to_int8(constrained(), batches)


# Pruning as schemes.

RECIPE = Recipe(epochs=8, images=512)


@pytest.mark.parametrize("scheme", [name for name in PRUNED if "imp" in name])
def test_what_is_left_is_just_the_dof_and_comes_back_from_its_file(scheme, tmp_path):
    cell = Cell("resnet-small", scheme, 300, 0)
    model, run = train(RECIPE, cell, tmp_path)
    assert run.dof == 300 == sum(c.dof for c in lincon.constraints(model)) and len(run.curve) == 8
    again = load(cell, (1, 10, 8), tmp_path / "model.safetensors").eval()
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(again(x), model.eval()(x))
    zeros = sum(
        int((w == 0).sum()) for c in lincon.constraints(model) for w in c.weights().values()
    )
    assert zeros == (11_236 if scheme.startswith("imp") else zeros)


def test_rewinding_starts_what_is_left_where_it_began(tmp_path):
    """At a learning rate of next to nothing each training ends where it began, so all rounds have the first values."""
    recipe = Recipe(epochs=4, images=64, learning_rate=1e-12, weight_decay=0.0)
    for scheme in ("imp", "rpg-imp"):
        model, _ = train(recipe, Cell("resnet-small", scheme, 500, 0), tmp_path / scheme)
        torch.manual_seed(0)
        began, _ = train(recipe, Cell("resnet-small", "vanilla", None, 0), tmp_path / f"{scheme}-v")
        if scheme == "imp":
            made = {name: w for c in lincon.constraints(model) for name, w in c.weights().items()}
            for name, weight in made.items():
                first = began.get_parameter(name)
                torch.testing.assert_close(weight, first * (weight != 0), rtol=1e-4, atol=1e-6)
            smallest = torch.cat([w[w != 0].abs() for w in made.values()]).min()
            dropped = torch.cat([began.get_parameter(n)[w == 0].abs() for n, w in made.items()])
            assert dropped.max() <= smallest * 1.0001


@pytest.mark.long
def test_a_pruned_training_that_is_resumed_ends_with_the_same_bits(tmp_path):
    from tests.test_indoor import Killed, KillIn

    recipe = Recipe(epochs=8, images=128)
    for scheme in ("imp", "rpg-imp"):
        cell = Cell("resnet-small", scheme, 400, 0)
        whole, _ = train(recipe, cell, tmp_path / scheme)
        with pytest.raises(Killed):
            train(recipe, cell, tmp_path / "cut", callbacks=[KillIn()])
        resumed, _ = train(recipe, cell, tmp_path / "cut", resume=True)
        pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


# Commands.


@pytest.fixture(scope="module", params=["rpg", "vanilla"])
def trained(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    assert call("train", "--scheme", request.param, "--epochs", 2, "--out", out).exit_code == 0
    return out


def test_prune_quantize_and_export_go_from_folder_to_folder(trained, tmp_path):
    pruned = call("prune", trained, "--keep", 0.5, "--epochs", 1, "--out", tmp_path / "pruned")
    assert pruned.exit_code == 0, pruned.output
    assert "test accuracy %: " in pruned.stdout and " -> " in pruned.stdout
    assert "zero weights" in pruned.stdout
    small = call("quantize", tmp_path / "pruned", "--bits", 4, "--out", tmp_path / "small")
    assert small.exit_code == 0, small.output
    sizes = [
        (folder / "model.safetensors").stat().st_size
        for folder in (trained, tmp_path / "pruned", tmp_path / "small")
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < sizes[1] < sizes[0]
    said = next(line for line in small.stdout.splitlines() if "accuracy" in line)
    again = call("evaluate", tmp_path / "small")
    assert again.stdout.splitlines()[0].split(": ")[1] == said.split(" -> ")[1]
    assert "4" in call("inspect", tmp_path / "small/model.safetensors").stdout
    for name in ("m.safetensors", "m.pt2", "m.onnx"):
        result = call("export", tmp_path / "small", tmp_path / name)
        assert (
            result.exit_code == 0 and f"{(tmp_path / name).stat().st_size:,} bytes" in result.stdout
        ), result.output


def test_an_eight_bit_export_says_what_it_costs(trained, tmp_path):
    result = call("export", trained, tmp_path / "q.pt2", "--int8")
    assert result.exit_code == 0, result.output
    before, after = (float(x) for x in result.stdout.splitlines()[0].split(": ")[1].split(" -> "))
    assert abs(before - after) < 5
    model, *_ = reload(trained)
    program, x = torch.export.load(tmp_path / "q.pt2").module(), images_of(Digits(), 40)
    assert (program(x) - model.eval()(x)).abs().mean() < 0.1 * model(x).abs().mean()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prune", "RUN", "--keep", "1.5"], ["1.5"]),
        (["prune", "RUN", "--keep", "half"], ["'half'"]),
        (["prune", "RUN", "--level", "channels"], ["'channels'", "weights"]),
        (["prune", "nowhere"], ["nowhere", "lincon train"]),
        (["quantize", "RUN", "--bits", "16"], ["bits=16", "2 to 8"]),
        (["quantize", "RUN", "--size", "0"], ["size=0"]),
        (["export", "RUN", "m.bin"], ["m.bin", ".onnx"]),
        (["export", "RUN", "m.onnx", "--int8"], ["m.onnx", ".pt2"]),
        (["export", "nowhere", "m.pt2"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_line(arguments, said, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(*(str(trained) if word == "RUN" else word for word in arguments))
    assert all(word in message for word in said), message
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.suffix in (".safetensors", ".pt2", ".onnx", ".bin")
    ]


def test_the_folder_that_a_model_comes_from_is_left_alone(trained):
    before = (trained / "model.safetensors").read_bytes()
    assert "another folder" in refused("prune", trained, "--out", trained)
    assert (trained / "model.safetensors").read_bytes() == before


# The paper's tables.


@pytest.mark.long
def test_the_pruning_table_has_the_papers_rows_at_equal_dof(tmp_path):
    result = call(
        "reproduce", "pruning", "--epochs", 4, "--images", 128, "--seeds", 1, "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["table"]
    assert [(r["paper: before %"], r["paper: after %"], r["paper: drop"]) for r in rows[:2]] == [
        ("92.3", "90.5", "1.8"),
        ("95.0", "93.0", "2.0"),
    ]
    model = MODELS["resnet-small"](1, 10, 8)
    whole = count_parameters(model, body_weights(model))
    assert rows[0]["dof"] == rows[1]["dof"] == f"{round(0.025 * whole):,}"
    assert {r["dof"] for r in rows[2:-2]} == {f"{round(s * whole):,}" for s in (0.05, 0.1, 0.2)}
    work = [int(r["multiply-adds"].replace(",", "")) for r in rows]
    assert len(set(work[:-2])) == 1 and all(
        0.5 * work[0] < slim <= 0.6 * work[0] for slim in work[-2:]
    )
    assert [r["paper: after %"] for r in rows[-2:]] == ["69.35", "69.1"]
    imp = next(run for run in results["runs"] if run["scheme"] == "imp")
    assert rows[0]["before %"] == f"{100 * imp['test']['accuracy'][0]:.2f}"
    assert rows[0]["after %"] == f"{100 * imp['test']['accuracy'][-1]:.2f}"


@pytest.mark.long
def test_the_quantization_table_measures_what_it_says(tmp_path):
    result = call("reproduce", "quantization", "--epochs", 2, "--seeds", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["paper: drop"] for row in results["table"]] == ["0.3", "0.1"]
    for row, run in zip(results["table"], results["runs"], strict=True):
        assert row["before %"] == f"{100 * run['test']['accuracy'][-1]:.2f}"
        assert float(row["drop"]) == pytest.approx(
            float(row["before %"]) - float(row["int8 %"]), abs=0.011
        )
        numbers = [
            int(row[f"{what}bytes"].replace(",", ""))
            for what in ("file ", "W in 8 bits, ", "W in 4 bits, ")
        ]
        assert numbers == sorted(numbers, reverse=True)
        assert float(row["ms / 64, int8"]) > 0 and abs(float(row["drop"])) < 10


def test_every_row_of_the_new_tables_can_be_trained():
    for name in ("pruning", "quantization"):
        for paper_row in TABLES[name].rows:
            assert paper_row.cell(["resnet18"], 0).scheme in (
                *PRUNED,
                "vanilla",
                "rpg",
                "deep-compression",
            )
    assert TABLES["pruning"].rows[0].cell(["resnet18"], 0).dof == 274_042
    assert TABLES["quantization"].rows[1].cell(["resnet18"], 0).dof == 5_578_752


def test_a_model_that_is_changed_after_its_last_epoch_is_measured_again(tmp_path):
    """Clustered after the last epoch: the score is that of the model in the file, not of the one before."""
    recipe, cell = Recipe(epochs=1, images=256), Cell("resnet-small", "deep-compression", 300, 0)
    _, run = train(recipe, cell, tmp_path)
    data = Digits(limit=256)
    found = measure(load(cell, data.shape, tmp_path / "model.safetensors"), recipe, data)
    assert found["accuracy"] == pytest.approx(run.score, abs=1e-6)


@pytest.mark.parametrize(
    ("scheme", "least"), [("imp", 4), ("rpg-imp", 4), ("imp-once", 2), ("rpg-knapsack", 2)]
)
def test_a_training_too_short_for_its_rounds_is_refused_before_it_begins(scheme, least, tmp_path):
    said = refused("train", "--scheme", scheme, "--epochs", least - 1, "--out", tmp_path / "out")
    assert f"{least} epochs" in said and not (tmp_path / "out").exists()
    assert f"{least} epochs" in refused(
        "compare", "--schemes", f"rpg,{scheme}", "--epochs", 1, "--out", tmp_path / "all"
    )


# What an independent review broke.


def test_buffers_that_no_file_holds_are_no_difference(tmp_path):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)
            self.register_buffer("places", torch.arange(8.0), persistent=False)

        def forward(self, x):
            return self.layer(x + self.places)

    assert export(Positions(), tmp_path / "model.safetensors", torch.randn(2, 8)) == 0


def test_outputs_that_are_not_numbers_are_compared_too():
    one, nan = torch.ones(2), torch.tensor([1.0, torch.nan])
    assert _gap([nan], [one]) == _gap([one], [nan]) == float("inf") and _gap([nan], [nan]) == 0
    assert _gap([one > 0], [one > 0]) == 0 and _gap([one < 0], [one > 0]) == 1
    assert _gap([torch.tensor([torch.inf, 1.0])], [torch.tensor([torch.inf, 2.0])]) == 0.5


def test_a_program_that_takes_one_size_of_batch_is_not_kept(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x) if x.shape[0] == 2 else self.layer(x) + 1

    with pytest.raises(Exception):  # noqa: B017 - torch's own guard, or our comparison
        export(Two(), tmp_path / "model.pt2", torch.randn(2, 3))
    assert not list(tmp_path.iterdir())
