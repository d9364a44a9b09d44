"""The classification task: schemes, trainings that resume, and the comparison that continues."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import lightning
import pytest
import torch

import lincon
from lincon.tasks.classification.compression.pruning import PRUNED
from lincon.tasks.classification.data import Digits
from lincon.tasks.classification.learner import Classifier, accuracy
from lincon.tasks.classification.models import MODELS, body_weights, count_parameters
from lincon.tasks.classification.schemes import R18_STAGES, SCHEMES
from lincon.tasks.classification.task import PRESETS, TASK
from lincon.tasks.experiments.schemes.scheme import degrees_of_freedom
from lincon.tasks.experiments.schemes.sharing import nonzeros
from lincon.tasks.experiments.sweeps import compare as comparing
from lincon.tasks.experiments.sweeps.report import header
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.training.learner import schedule
from lincon.tasks.experiments.training.models import build, load
from lincon.tasks.experiments.training.recipe import Cell, Recipe, Setup, cells
from lincon.tasks.experiments.training.record import reload
from lincon.tasks.experiments.training.run import Run
from lincon.tasks.experiments.training.trainer import trainer_options
from lincon.tasks.experiments.training.training import train

SHARED = [name for name in SCHEMES if name not in PRUNED]
CONSTRAINED = [
    name for name in SHARED if name not in ("vanilla", "small", "lego", "deep-compression")
]
QUICK = Recipe(epochs=1)
DIGITS = Digits()


def cell(scheme="rpg", dof=0.1, seed=0, model="resnet-small"):
    return Cell(model, scheme, dof, seed)


def sweep(schemes, seeds, out, recipe=QUICK, dof=0.1):
    return Sweep(recipe, cells(["resnet-small"], list(schemes), [dof], range(seeds)), out)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Every scheme, one epoch: the comparison and its folder."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("compared")
    return comparing.compare(sweep(SHARED, 1, out)), out


def fail_to_train(*_args, **_kwargs):
    raise AssertionError("nothing was to be trained")


# Schemes.


@pytest.mark.parametrize("scheme", CONSTRAINED)
def test_constrained_schemes_have_exactly_the_dof_asked_for(scheme):
    model = build(cell(scheme, 1000), DIGITS.shape)
    assert degrees_of_freedom(model) == 1000
    assert count_parameters(model) == 12_082 - 11_536 + 1000


def test_hash_has_a_free_vector_for_every_layer():
    (constraint,) = lincon.constraints(build(cell("hash"), DIGITS.shape))
    assert len(constraint.free) == len(body_weights(MODELS["resnet-small"](1, 10, 8)))


def test_blocks_have_a_ring_for_every_stage():
    (constraint,) = lincon.constraints(build(cell("rpg-block", 3000), DIGITS.shape))
    stages = [(8 * 8 * 2) * 9, (8 * 16 + 16 * 16) * 9 + 8 * 16, (16 * 20 + 20 * 20) * 9 + 16 * 20]
    rings = [len(free) for free in constraint.free.values()]
    assert sum(rings) == 3000
    assert all(
        abs(ring - 3000 * stage / 11_536) <= 1 for ring, stage in zip(rings, stages, strict=True)
    )


def test_blocks_of_four_stages_have_the_sizes_of_resnet18():
    """R34 at 11M: the per-stage sizes of SYSTEMS 2.2, which the paper's block-wise row has."""
    with torch.device("meta"):
        bare = partial(MODELS["resnet34"], 3, 100, 32)
    model = SCHEMES["rpg-block"].make(bare, sum(R18_STAGES), 0)
    (constraint,) = lincon.constraints(model)
    assert tuple(len(free) for free in constraint.free.values()) == R18_STAGES


def test_blocks_of_a_transformer_are_its_layers():
    (constraint,) = lincon.constraints(
        build(cell("rpg-block", 0.3, model="vit-micro:depth=3"), DIGITS.shape)
    )
    assert len(constraint.free) == 3


def four():
    """Four stages that are not ResNet-18's."""
    model = torch.nn.Sequential()
    model.body = torch.nn.Sequential(*(torch.nn.Linear(8, 8, bias=False) for _ in range(4)))
    return model


def test_no_ring_of_a_stage_is_larger_than_the_stage():
    model = SCHEMES["rpg-block"].make(four, 128, 0)
    assert [len(free) for free in lincon.constraints(model)[0].free.values()] == [32] * 4
    with pytest.raises(lincon.LinconError, match="4 rings"):
        SCHEMES["rpg-block"].make(four, 3, 0)


def test_frozen_weights_of_the_body_stay_out():
    model = four()
    model.body[1].weight.requires_grad_(False)
    assert len(body_weights(model)) == 3


def test_ablations_are_the_ring_without_its_parts():
    """Plain: every weight is the free entry at its row modulo dof, in the scale of its tensor."""
    model = build(cell("rpg-plain", 700), DIGITS.shape)
    (constraint,) = lincon.constraints(model)
    weights, start = constraint.weights(), 0
    for entry in constraint.ledger:
        rows = torch.arange(start, start + math.prod(entry.shape))
        expected = entry.scale * model.free[rows % 700]
        torch.testing.assert_close(weights[entry.name].flatten(), expected)
        start += len(rows)


def test_legos_come_near_the_dof_asked_for(tmp_path):
    for dof in (0.05, 0.1, 0.5):
        _, run = train(QUICK, cell("lego", dof), tmp_path)
        assert abs(run.dof / 11_536 - dof) < 0.1 * dof + 0.005


def test_deep_compression_leaves_as_many_weights_as_asked(tmp_path):
    model, run = train(Recipe(epochs=5), cell("deep-compression", 2000), tmp_path)
    assert run.dof == nonzeros(model) == 2000
    (constraint,) = lincon.constraints(model)
    for weight in constraint.weights().values():
        values = weight.unique()
        assert len(values[values != 0]) <= 255


def test_fine_tuning_centroids_does_not_undo_the_training(tmp_path):
    """Test accuracy in the last phase stays near that of the pruned network (epochs 6 to 8 of 10)."""
    recipe = Recipe(epochs=10, images=600, batch=32)
    for seed in range(2):
        _, run = train(
            recipe, cell("deep-compression", 0.5, seed, "resnet-medium"), tmp_path / str(seed)
        )
        assert min(run.curve[8:]) > run.curve[7] - 0.03


def test_phases_share_the_epochs():
    assert SCHEMES["deep-compression"].epochs(20) == [10, 6, 4]
    assert SCHEMES["lego"].epochs(20) == [2, 18]
    for scheme in SCHEMES.values():
        assert all(sum(scheme.epochs(total)) == total for total in range(1, 30))


def test_schemes_start_from_the_same_stem_and_head():
    states = [
        build(cell(scheme, seed=5), DIGITS.shape).state_dict()
        for scheme in ("vanilla", *CONSTRAINED)
    ]
    for name in ("stem.0.weight", "head.weight"):
        assert all(state[name].equal(states[0][name]) for state in states)


def test_a_dof_of_nothing_is_refused():
    for dof in (0, -3, 0.0, 1.5, float("nan"), 11_537):
        with pytest.raises(lincon.LinconError, match="dof"):
            build(cell(dof=dof), DIGITS.shape)


def test_a_scheme_without_dof_is_one_cell_whatever_the_dof():
    assert len(cells(["resnet-small"], ["vanilla"], [0.1, 0.5], range(1))) == 1
    assert len(cells(["resnet-small"], ["rpg"], [0.1, 0.5], range(1))) == 2
    assert len(cells(["resnet-small"], ["rpg"], [1, 1.0], range(1))) == 2
    with pytest.raises(lincon.LinconError, match="at least one"):
        cells([], ["rpg"], [0.1], range(1))


def test_cells_have_names_of_their_own():
    many = cells(["resnet-small", "vit-micro:patch=2"], list(SCHEMES), [0.1, 0.01, 1000], range(3))
    assert len({one.name for one in many}) == len(many)
    assert all("/" not in one.name and ":" not in one.name for one in many)


# Training.


def test_equal_seeds_give_equal_runs(tmp_path):
    first, second = (train(QUICK, cell(seed=1), tmp_path / str(n))[1] for n in range(2))
    assert first.train_loss == second.train_loss and first.curve == second.curve


def test_accuracy_is_that_of_the_last_epoch():
    run = Run(
        "m",
        "rpg",
        1,
        0,
        1,
        1,
        1,
        [1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        {"accuracy": [0.2, 0.9, 0.7]},
        {"accuracy": 1.0},
    )
    assert run.score == 0.7


def test_the_reported_accuracies_are_those_of_the_saved_model(tmp_path):
    _, run = train(Recipe(epochs=2), cell(), tmp_path)
    model = load(cell(), DIGITS.shape, tmp_path / "model.safetensors").eval()
    for (images, labels), reported in (
        (DIGITS.test_set.tensors, run.score),
        (DIGITS.train_set.tensors, run.train_score),
    ):
        with torch.no_grad():
            right = (model(DIGITS.prepare(images)).argmax(1) == labels).double().mean()
        assert reported == pytest.approx(right.item(), abs=1e-6)


@pytest.mark.parametrize("scheme", SHARED)
def test_every_scheme_saves_and_loads(compared, scheme):
    """The file alone, in a fresh model, has the accuracy that the table says."""
    _, out = compared
    one = cell(scheme)
    run = json.loads((out / "runs" / one.name / "run.json").read_text())["run"]
    model = load(one, DIGITS.shape, out / "runs" / one.name / "model.safetensors")
    assert accuracy(model, DIGITS) == pytest.approx(run["test"]["accuracy"][-1], abs=1e-6)
    assert accuracy(model, DIGITS, train=True) == pytest.approx(run["train"]["accuracy"], abs=1e-6)


def test_training_learns(tmp_path):
    _, run = train(Recipe(epochs=3, learning_rate=0.05), cell("vanilla"), tmp_path)
    assert run.score > 0.5 and run.train_loss[-1] < run.train_loss[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "steps"},
        {"schedule": "cosine", "optimiser": "adam"},
        {"schedule": "thirds"},
        {"schedule": "exponential", "optimiser": "heavy-ball"},
    ],
)
def test_other_schedules_and_optimisers_train(tmp_path, changes):
    rate = 0.003 if changes.get("optimiser") == "adam" else 0.05
    _, run = train(Recipe(epochs=3, learning_rate=rate, **changes), cell(dof=0.5), tmp_path)
    assert run.train_loss[-1] < run.train_loss[0]


class Killed(Exception):
    pass


class KillAfter(lightning.Callback):
    """Ends a training in the middle of the epoch after ``epochs``, counted over all phases."""

    def __init__(self, epochs):
        self.left = epochs

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.left == 0 and batch_idx == 3:
            raise Killed

    def on_train_epoch_end(self, trainer, pl_module):
        self.left -= 1


@pytest.mark.parametrize(
    ("scheme", "after"), [("rpg", 1), ("rpg", 3), ("lego", 2), ("deep-compression", 3)]
)
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, scheme, after):
    recipe = Recipe(epochs=5)
    whole, run = train(recipe, cell(scheme, 0.2), tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, cell(scheme, 0.2), tmp_path / "cut", callbacks=[KillAfter(after)])
    torch.manual_seed(99)
    resumed, again = train(recipe, cell(scheme, 0.2), tmp_path / "cut", resume=True)
    states = whole.state_dict(), resumed.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (again.train_loss, again.curve) == (run.train_loss, run.curve)
    assert not list((tmp_path / "cut").glob("*.ckpt"))


def test_a_model_of_an_earlier_training_is_not_taken_for_that_of_one_that_was_cut(tmp_path):
    """Trained anew in the same folder, and cut: what lies there is the old model under the new record."""
    train(Recipe(epochs=1), cell(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(Killed):
        train(Recipe(epochs=2), cell(seed=1), tmp_path, callbacks=[KillAfter(1)])
    assert (tmp_path / "model.safetensors").read_bytes() == before
    with pytest.raises(
        lincon.LinconError, match="holds a training that was cut: go on with lincon train --resume"
    ):
        reload(tmp_path)
    train(Recipe(epochs=2), cell(seed=1), tmp_path, resume=True)
    assert reload(tmp_path)[1].seed == 1


def test_a_training_cut_after_its_last_epoch_resumes(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError("no space left")

    whole, run = train(QUICK, cell(), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="space"):
        patch.setattr(lincon, "save", full)
        train(QUICK, cell(), tmp_path / "cut")
    resumed, again = train(QUICK, cell(), tmp_path / "cut", resume=True)
    assert torch.equal(whole.free, resumed.free) and again.curve == run.curve


def test_a_training_of_other_options_is_not_resumed(tmp_path):
    with pytest.raises(Killed):
        train(Recipe(epochs=3), cell(), tmp_path, callbacks=[KillAfter(1)])
    with pytest.raises(lincon.LinconError, match=r"learning_rate is 0\.1 there and 0\.2 here"):
        train(Recipe(epochs=3, learning_rate=0.2), cell(), tmp_path, resume=True)
    with pytest.raises(lincon.LinconError, match=r"dof is 0\.1 there and 0\.2 here"):
        train(Recipe(epochs=3), cell(dof=0.2), tmp_path, resume=True)


def test_a_new_training_leaves_no_old_checkpoint(tmp_path):
    """One that was cut in its second phase must not be mixed with a new one cut in its first."""
    recipe = Recipe(epochs=5)
    for after in (3, 1):
        with pytest.raises(Killed):
            train(recipe, cell("deep-compression"), tmp_path / "cut", callbacks=[KillAfter(after)])
    assert [path.name for path in (tmp_path / "cut").glob("*.ckpt")] == ["phase-0.ckpt"]


def test_a_sweep_goes_on_in_the_middle_of_a_training(tmp_path, monkeypatch):
    begun = sweep(["rpg"], 1, tmp_path, Recipe(epochs=3))
    with pytest.raises(Killed):
        train(
            begun.recipe,
            begun.cells[0],
            begun.store.place(begun.cells[0]),
            callbacks=[KillAfter(2)],
        )
    seen = []
    monkeypatch.setattr(
        Classifier, "on_train_epoch_start", lambda self: seen.append(self.current_epoch)
    )
    (run,) = begun.run()
    assert len(run.curve) == 3 and seen == [2]


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(lincon.LinconError, match="no checkpoint"):
        train(QUICK, cell(), tmp_path, resume=True)


def test_presets_are_recipes():
    for preset in PRESETS.values():
        assert replace(QUICK, **preset)
    assert PRESETS["cifar"] == {"epochs": 200, "batch": 128, "schedule": "steps"}


@pytest.mark.parametrize(
    ("preset", "rates"),
    [
        ("cifar", {0: 0.1, 59: 0.1, 60: 0.02, 120: 0.004, 160: 0.0008}),
        ("imagenet", {0: 0.1, 45: 0.01, 30: 0.1 * 0.1 ** (30 / 45)}),
        ("imagenet-paper", {0: 0.3, 74: 0.3, 75: 0.03, 150: 0.003}),
    ],
)
def test_presets_have_the_published_schedules(preset, rates):
    """Learning rates at the start of epochs, with one step an epoch: SYSTEMS 2.5."""
    recipe = Recipe(**PRESETS[preset])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], recipe.learning_rate)
    scheduler = schedule(optimizer, recipe, recipe.epochs)
    seen = []
    for _ in range(recipe.epochs):
        seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert {epoch: seen[epoch] for epoch in rates} == pytest.approx(rates)


def test_flags_of_the_trainer_are_checked():
    assert trainer_options({"precision": "bf16-mixed"}) == {"precision": "bf16-mixed"}
    with pytest.raises(lincon.LinconError, match="'precison'"):
        trainer_options({"precison": 1})
    for name, value, said in [
        ("max_epochs", 1, "epochs"),
        ("fast_dev_run", True, "set by lincon"),
        ("precision", "", "no value"),
        ("precision", "64-true", "mixed"),
        ("limit_train_batches", 0, "nothing"),
    ]:
        with pytest.raises(lincon.LinconError, match=said):
            trainer_options({name: value})


def test_runs_with_other_flags_of_the_trainer_are_not_mixed(tmp_path):
    first = replace(sweep(["rpg"], 1, tmp_path), setup=Setup(trainer={"gradient_clip_val": 1.0}))
    first.run()
    with pytest.raises(lincon.LinconError, match=r"trainer is .*gradient_clip_val.* there"):
        sweep(["rpg"], 1, tmp_path).run()
    result = comparing.compare(first)
    assert result and json.loads((tmp_path / "results.json").read_text())["recipe"]["trainer"] == {
        "gradient_clip_val": 1.0
    }


@pytest.mark.parametrize(
    "flag", [{"precision": "foo"}, {"strategy": "foo"}, {"devices": 0}, {"accelerator": "gpu"}]
)
def test_what_the_trainer_refuses_is_said(tmp_path, flag):
    if flag == {"accelerator": "gpu"} and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(lincon.LinconError, match="Trainer refuses"):
        train(QUICK, cell(), tmp_path, setup=Setup(trainer=flag))


def test_flags_of_the_trainer_reach_it(tmp_path):
    _, run = train(QUICK, cell(), tmp_path / "a", setup=Setup(trainer={"limit_train_batches": 1}))
    _, other = train(QUICK, cell(), tmp_path / "b")
    assert run.train_loss != other.train_loss


def test_logs_are_written(tmp_path):
    train(Recipe(epochs=2), cell(), tmp_path, setup=Setup(logs=["csv", "tensorboard"]))
    (table,) = tmp_path.glob("logs/csv-*/metrics.csv")
    assert "train_loss" in table.read_text() and "test_accuracy" in table.read_text()
    train(Recipe(epochs=2), cell(), tmp_path, setup=Setup(logs=["csv"]))
    assert len(list(tmp_path.glob("logs/csv-*/metrics.csv"))) == 2, "an earlier log was overwritten"
    assert list(tmp_path.glob("logs/tensorboard-*/events*"))


# Comparing.


def test_every_scheme_is_in_the_table_at_equal_dof(compared):
    result, _ = compared
    of = {line["scheme"]: line for line in result.numbers["table"]}
    assert list(of) == SHARED
    assert {of[scheme]["dof"] for scheme in (*CONSTRAINED, "deep-compression")} == {1154}
    assert {of[scheme]["total"] for scheme in CONSTRAINED} == {1700}
    assert of["vanilla"]["total"] == 12_082 and abs(of["small"]["total"] - 1700) < 100
    assert abs(of["lego"]["dof"] - 1154) < 100
    assert of["rpg"]["file_bytes"] < of["vanilla"]["file_bytes"]


def test_table_numbers_and_picture_are_written(compared):
    _, out = compared
    assert sorted(path.name for path in out.iterdir()) == [
        "picture.png",
        "picture.svg",
        "results.json",
        "runs",
        "table.md",
    ]
    table = (out / "table.md").read_text()
    assert f"| {' | '.join(header(TASK.measures))} |" in table and all(
        f"| {scheme} |" in table for scheme in SHARED
    )
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    drawing = ElementTree.fromstring((out / "picture.svg").read_text())
    words = {
        "".join(text.itertext()).strip() for text in drawing.iter() if text.tag.endswith("text")
    }
    assert set(SHARED) <= words and "test accuracy %" in words
    results = json.loads((out / "results.json").read_text())
    assert results["versions"]["torch"] == torch.__version__ and results["machine"]["cpus"]
    assert len(results["runs"]) == len(SHARED) == len(list((out / "runs").iterdir()))


def test_a_finished_comparison_trains_nothing(compared, monkeypatch):
    result, out = compared
    monkeypatch.setattr(lightning.Trainer, "fit", fail_to_train)
    assert comparing.compare(sweep(SHARED, 1, out)).texts == result.texts


def test_an_interrupted_comparison_continues(tmp_path, monkeypatch):
    def interrupt(self, *_args, **_kwargs):
        raise SystemExit(1)  # as Lightning does on Ctrl-C

    comparing.compare(sweep(["vanilla"], 1, tmp_path))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lightning.Trainer, "fit", interrupt)
        comparing.compare(sweep(["vanilla", "rpg"], 1, tmp_path))
    runs = sorted(tmp_path.glob("runs/*/run.json"))
    assert [path.parent.name for path in runs] == ["resnet-small-vanilla-0"]
    before = runs[0].stat().st_mtime_ns
    assert len(comparing.compare(sweep(["vanilla", "rpg"], 1, tmp_path)).rows) == 2
    assert runs[0].stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "other", [Recipe(epochs=2), Recipe(epochs=1, batch=32), Recipe(epochs=1, images=500)]
)
def test_other_options_in_the_same_folder_are_refused(compared, other):
    _, out = compared
    with pytest.raises(
        lincon.LinconError, match=r"runs.*other options.*(epochs|batch|images) is .* there"
    ):
        comparing.compare(sweep(["rpg"], 1, out, other))


def test_a_damaged_run_is_named(tmp_path):
    (tmp_path / "runs/resnet-small-rpg-0.1-0").mkdir(parents=True)
    (tmp_path / "runs/resnet-small-rpg-0.1-0/run.json").write_text('{"recipe": {')
    with pytest.raises(lincon.LinconError, match=r"resnet-small-rpg-0\.1-0/run\.json"):
        comparing.compare(sweep(["rpg"], 1, tmp_path))


def test_importing_lincon_imports_no_task():
    code = "import lincon, sys; print({'lightning', 'typer', 'lincon.tasks'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_tasks_cannot_be_imported_under_a_second_name(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(lincon.__file__).parents[1]))
    with pytest.raises(ImportError, match=r"lincon\.tasks"):
        __import__("tasks")


def test_a_run_that_diverged_leaves_plain_json(tmp_path):
    comparing.compare(sweep(["vanilla"], 1, tmp_path, Recipe(epochs=1, learning_rate=1e30)))

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)


@pytest.mark.parametrize("name", ["phase-0.ckpt", "training.json"])
def test_damaged_leftovers_are_named(tmp_path, name):
    with pytest.raises(Killed):
        train(Recipe(epochs=3), cell(), tmp_path, callbacks=[KillAfter(1)])
    (tmp_path / name).write_bytes(b"junk{")
    with pytest.raises(lincon.LinconError, match=name):
        train(Recipe(epochs=3), cell(), tmp_path, resume=True)
