"""Settings that are tuned on held-out items, and comparisons that choose their number of seeds."""

import json
from dataclasses import replace

import pytest
import torch

from lincon import LinconError
from lincon.tasks.classification.learner import MEASURES
from lincon.tasks.classification.studies.laws import LAWS
from lincon.tasks.experiments.sweeps import compare
from lincon.tasks.experiments.sweeps.auto import Auto
from lincon.tasks.experiments.sweeps.grid import FIRST_SEED, Grid, Trial, parse
from lincon.tasks.experiments.sweeps.statistics import LOOKS, difference
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.training.recipe import Cell, Recipe, cells, open_data
from lincon.tasks.experiments.training.run import Run
from tests.test_cli import call

RECIPE = Recipe(epochs=1, batch=16, images=512)
GRID = Grid({"learning_rate": [1e-6, 0.1]}, held_out=200, seeds=1)


def items(split):
    return {tuple(image.flatten().tolist()) for image in split.tensors[0]}


def test_held_out_items_are_training_items_that_are_not_trained_on():
    whole, held = open_data(RECIPE, 0), open_data(replace(RECIPE, held_out=200), 0)
    assert (len(held.train_set), len(held.test_set)) == (512, 200)
    training = items(open_data(Recipe(), 0).train_set)
    assert items(held.test_set) <= training - items(held.train_set)
    assert items(held.train_set) <= training
    assert not items(held.test_set) & items(whole.test_set)
    assert held.test_set.labels.bincount().tolist() == pytest.approx([20] * 10, abs=1)


@pytest.mark.parametrize("recipe", [Recipe(held_out=1297), Recipe(held_out=200, images=1200)])
def test_holding_out_more_than_there_is_is_refused(recipe):
    with pytest.raises(LinconError, match="choose from 1 to"):
        open_data(recipe, 0)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The folder of a tuned comparison of two schemes with two seeds, and its result."""
    out = tmp_path_factory.mktemp("tuned")
    every = cells(["resnet-small"], ["rpg", "random"], [0.1], range(2))
    sweep = Sweep(RECIPE, every, out, grid=GRID)
    return sweep, compare.compare(sweep)


def test_what_scores_best_on_the_held_out_items_is_trained_with(tuned):
    sweep, result = tuned
    assert result.header[-1] == "picked"
    trials = result.numbers["trials"]
    low, high = ([t["scores"][FIRST_SEED] for t in pair] for pair in (trials[:2], trials[2:]))
    for row, worse, better in zip(result.texts, low, high, strict=True):
        assert row[-1] == f"learning rate 0.1, by {better - worse:.2f}"
    assert "partly chance" in result.notes[-1]
    for cell in sweep.cells:
        record = json.loads((sweep.out / "runs" / cell.name / "training.json").read_text())
        assert record["learning_rate"] == 0.1
        assert "held_out" not in record


def test_trials_have_seeds_of_their_own_and_are_in_the_results(tuned):
    sweep, _ = tuned
    results = json.loads((sweep.out / "results.json").read_text())
    assert results["recipe"]["tuned"] == {
        "learning_rate": [1e-6, 0.1],
        "held_out": 200,
        "seeds": 1,
    }
    assert [trial["settings"]["learning_rate"] for trial in results["trials"]] == [
        *(1e-6, 1e-6),
        *(0.1, 0.1),
    ]
    assert {seed for trial in results["trials"] for seed in trial["scores"]} == {str(FIRST_SEED)}
    low, high = (results["trials"][n]["scores"][str(FIRST_SEED)] for n in (0, 2))
    assert high > low


def test_a_tuned_comparison_continues_with_another_seed_and_trains_nothing_twice(
    tuned, monkeypatch
):
    sweep, result = tuned
    trained = []
    train = Sweep.train

    def counted(self, cell, callbacks=()):
        trained.append(cell)
        return train(self, cell, callbacks)

    monkeypatch.setattr(Sweep, "train", counted)
    again = compare.compare(sweep)
    assert (again.texts, trained) == (result.texts, [])
    with pytest.raises(LinconError, match="tuned is"):
        compare.compare(replace(sweep, grid=replace(GRID, seeds=2)))


def test_a_run_that_was_made_with_other_settings_is_refused(tuned):
    sweep, _ = tuned
    name = sweep.cells[0].name
    picked = {replace(cell, seed=0).name: {"learning_rate": 0.2} for cell in sweep.cells}
    other = replace(sweep, settings=picked)
    with pytest.raises(LinconError, match=f"{name}.*learning_rate is 0.1 there and 0.2 here"):
        other.run()


@pytest.mark.parametrize(
    "command",
    [
        ["scaling", "--model", "resnet-small", "--dof", "0.01,0.02,0.05,0.1", "--seeds", "1"],
        ["convergence", "--model", "resnet-small", "--dof", "0.1", "--seeds", "1"],
        ["generalization", "--model", "resnet-small", "--dof", "0.1", "--seeds", "1"],
        ["reproduce", "generalization", "--model", "resnet-small,resnet-medium", "--seeds", "1"],
    ],
    ids=lambda command: command[0],
)
def test_every_experiment_tunes(command, tmp_path, monkeypatch):
    monkeypatch.delitem(LAWS, "saturating")  # a thousand fits to models that know nothing take long
    shared = ["--epochs", "1", "--images", "64", "--batch", "32", "--quiet", "--out", str(tmp_path)]
    tuned = ["--tune", "learning-rate=0.01,0.1", "--tune-seeds", "1", "--held-out", "100"]
    result = call(*command, *shared, *tuned)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert {trial["settings"]["learning_rate"] for trial in results["trials"]} == {0.01, 0.1}
    assert results["recipe"]["tuned"]["held_out"] == 100
    assert "| picked |" in (tmp_path / "table.md").read_text()
    assert "The test set is not looked at" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("text", ["learning-rate", "learning-rate=", "learning-rate=a"])
def test_a_setting_without_values_is_refused(text):
    with pytest.raises(LinconError, match="--tune"):
        parse([text])


def test_what_is_no_setting_or_would_see_the_test_set_is_refused():
    with pytest.raises(LinconError, match="setting to be tuned 'epochs'"):
        Grid({"epochs": [1.0]}, held_out=10)
    with pytest.raises(LinconError, match="--held-out"):
        Grid({"learning_rate": [0.1]}, held_out=0)


def test_a_trial_that_diverges_is_the_worst():
    good, bad = (Trial("m", "rpg", 0.1, {}, {0: score, 1: 9.0}) for score in (1.0, float("nan")))
    for measure in MEASURES:
        assert bad.rank(measure) < good.rank(measure)


def runs(seeds, hours=0.0):
    return [
        Run("m", "rpg", 1, seed, 1, 1, 1, [3600 * hours / seeds], [], {}, {})
        for seed in range(seeds)
    ]


def found(scores):
    return difference(scores, [0.0] * len(scores))


@pytest.mark.parametrize(
    "main, ended, hours, words",
    [
        (found([1.0, 1.1, 0.9, 1.0]), 4, 0, "excludes zero"),
        (found([0.01, -0.01, 0.0, 0.02]), 4, 0, "smaller than 0.2"),
        (found([1.0, -1.0, 2.0, 0.0]), 4, 0, ""),
        (found([1.0, 1.1, 0.9, 1.0, 1.0]), 5, 0, ""),  # no look after five
        (None, 4, 0, ""),
        (found([1.0, -1.0, 2.0, 0.0]), 4, 3, "stays open"),
        (found([1.0, -1.0, 2.0, 0.0]), LOOKS[-1], 0, "the most"),
    ],
)
def test_seeds_suffice_when_the_main_difference_is_decided_or_the_hours_are_spent(
    main, ended, hours, words
):
    reason = Auto(matters=0.2, hours=2.0).reason(main, runs(ended, hours))
    assert words in reason if words else reason == ""


def test_a_comparison_ends_when_it_is_decided_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(Sweep, "train", lambda self, cell, callbacks=(): made(cell))
    sweep = Sweep(RECIPE, cells(["resnet-small"], ["rpg", "random"], [0.1], range(48)), tmp_path)
    result = compare.compare(sweep, auto=Auto())
    assert any("After 4 seeds the main difference excludes zero" in note for note in result.notes)
    assert f"up to {len(LOOKS)} times" in " ".join(result.notes)
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"]) == 8
    assert compare.compare(sweep, auto=Auto()).rows == result.rows


def made(cell: Cell) -> Run:
    """A run of which random sharing is better by one point, about."""
    torch.manual_seed(cell.seed)
    accuracy = 0.9 + 0.01 * (cell.scheme == "random") + 1e-3 * torch.rand(()).item()
    test = {"accuracy": [accuracy], "cross_entropy": [1 - accuracy]}
    return Run(
        cell.model, cell.scheme, cell.dof, cell.seed, 9, 9, 9, [1.0], [1.0], test, {"accuracy": 1.0}
    )
