"""Convergence, generalization, scaling and the paper's tables: what they compute, on runs made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import lincon
from lincon.tasks.classification.data import Digits
from lincon.tasks.classification.data.shifts import SHIFTS
from lincon.tasks.classification.learner import MEASURES
from lincon.tasks.classification.studies import convergence, generalization, scaling
from lincon.tasks.classification.tables import TABLES
from lincon.tasks.experiments.sweeps import compare, reproduce
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.training.models import load
from lincon.tasks.experiments.training.recipe import Cell, Recipe, cells
from lincon.tasks.experiments.training.run import Run


def run(
    scheme="rpg",
    asked=0.1,
    seed=0,
    dof=100,
    model="m",
    test=(0.5, 0.8, 0.9),
    loss=(2.0, 1.0, 0.5),
    train=0.95,
):
    return Run(
        model,
        scheme,
        asked,
        seed,
        dof,
        dof + 50,
        1000,
        [1.0] * len(test),
        list(loss),
        {"accuracy": list(test), "cross_entropy": [1 - value for value in test]},
        {"accuracy": train},
    )


# Convergence.


def test_steps_to_reach_an_accuracy_by_hand():
    one = run(test=(0.5, 0.82, 0.8, 0.9))
    assert convergence.reached(one, 0.8, steps=10) == 20
    assert convergence.reached(one, 0.9, steps=10) == 40
    assert convergence.reached(one, 0.91, steps=10) is None


def test_the_table_of_convergence_by_hand():
    runs = [
        run("vanilla", None, 0, test=(0.9, 0.95, 1.0)),
        run("vanilla", None, 1, test=(0.5, 0.95, 1.0)),
        run("rpg", 0.1, 0, test=(0.5, 0.85, 0.9), loss=(3.0, 2.0, 1.0)),
        run("rpg", 0.1, 1, test=(0.5, 0.81, 0.9), loss=(3.0, 2.0, 1.0)),
        run("rpg", 0.1, 2, test=(0.9, 0.81, 0.9), loss=(3.0, 2.0, 1.0)),
    ]
    vanilla, rpg = convergence.summarise(runs, "title", steps=10).numbers["table"]
    assert vanilla["own"] == vanilla["vanilla"] == {0.9: 15, 0.95: 20, 0.99: 30}
    assert rpg["own"][0.9] == 20 and rpg["vanilla"] == {0.9: 30, 0.95: None, 0.99: None}
    assert rpg["loss"] == 2.0 and rpg["accuracy"] == pytest.approx(90)


def test_convergence_without_vanilla_is_refused(tmp_path):
    with pytest.raises(lincon.LinconError, match="vanilla"):
        convergence.convergence(
            Sweep(Recipe(epochs=1), cells(["resnet-small"], ["rpg"], [0.1], range(1)), tmp_path)
        )


# Generalization.


@pytest.fixture(scope="module")
def generalized(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("generalized")
    sweep = Sweep(
        Recipe(epochs=3), cells(["resnet-small"], ["vanilla", "rpg"], [0.1], range(1)), out
    )
    return generalization.generalization(sweep), sweep


def test_the_gap_is_train_minus_test(generalized):
    result, sweep = generalized
    for line, cell in zip(result.numbers["table"], sweep.cells, strict=True):
        found = sweep.store.get(cell)
        assert line["gap"][0] == pytest.approx(100 * (found.train_score - found.score))


def test_shifted_accuracies_are_those_of_the_saved_model(generalized):
    """Computed anew: contrast draws nothing at random, so it can be checked without the generator."""
    result, sweep = generalized
    data = Digits()
    images, labels = data.test_set.tensors
    for found, cell in zip(result.numbers["shifted"], sweep.cells, strict=True):
        model = load(cell, data.shape, sweep.store.model(cell)).eval()
        for strength in (1, 5):
            shifted = SHIFTS["contrast"](images, strength, torch.Generator())
            with torch.no_grad():
                right = (model(data.prepare(shifted)).argmax(1) == labels).double().mean()
            assert found["contrast"][strength - 1] == pytest.approx(float(right), abs=1e-6)
        assert set(found) == set(SHIFTS) and all(len(values) == 5 for values in found.values())


def test_evaluations_are_kept(generalized, monkeypatch):
    result, sweep = generalized
    monkeypatch.setattr(generalization, "on_shifts", None)
    assert generalization.generalization(sweep).rows == result.rows


# Scaling.


def law(dof, scale=3.0, k=0.5):
    return 1 - scale * dof**-k


def test_scaling_recovers_the_law_of_made_up_runs():
    dofs = (100, 200, 500, 1000, 2000, 5000)
    runs = [
        run(asked=dof, seed=seed, dof=dof, model=model, test=(law(dof, k=k) + 0.002 * (seed - 1),))
        for model, k in (("a", 0.5), ("b", 0.4))
        for dof in dofs
        for seed in range(3)
    ]
    runs = [replace(each, test={"accuracy": each.test["accuracy"]}) for each in runs]
    result = scaling.summarise(runs, "title", images=10_000, predict=700)
    fits = result.numbers["fits"]
    assert fits["a"]["power"]["parameters"]["k"] == pytest.approx(0.5, abs=0.03)
    assert fits["b"]["power"]["parameters"]["k"] == pytest.approx(0.4, abs=0.03)
    assert any("Exponents of a and b" in note and "different" in note for note in result.notes)
    assert any(
        "a at 700 DoF" in note and f"{100 * law(700):.1f}"[:2] in note for note in result.notes
    )
    json.dumps(result.numbers)


@pytest.fixture
def power_law_alone(monkeypatch):
    """The saturating law, which takes seconds, is left out."""
    monkeypatch.setattr(scaling, "LAWS", {"power": scaling.LAWS["power"]})


def test_scaling_fits_the_cross_entropy_where_it_was_measured(power_law_alone):
    dofs = (100, 200, 500, 1000, 2000, 5000)
    runs = [
        replace(made, test={**made.test, "cross_entropy": [9 * made.dof**-0.3]})
        for made in (run(asked=dof, dof=dof, test=(law(dof),)) for dof in dofs)
    ]
    result = scaling.summarise(runs, "title", images=10_000, predict=700)
    numbers = result.numbers["cross_entropy"]
    (fits,) = numbers["fits"].values()
    assert fits["power"]["parameters"] == pytest.approx({"c": 9, "k": 0.3})
    assert len(next(iter(numbers["held_out"].values()))) == 4
    assert result.header[-1] == "cross-entropy"
    assert any("off by 0.0000 on average" in note for note in result.notes)
    assert any(f"cross-entropy by its power law: {9 * 700**-0.3:.4f}" in n for n in result.notes)


def test_a_prediction_outside_of_the_range_is_refused(power_law_alone):
    runs = [run(asked=d, dof=d, test=(law(d),)) for d in (100, 200, 500, 1000, 2000)]
    with pytest.raises(lincon.LinconError, match="100"):
        scaling.summarise(runs, "title", images=1000, predict=50)


def test_too_few_dof_are_refused(tmp_path):
    few = Sweep(Recipe(epochs=1), cells(["resnet-small"], ["rpg"], [0.1, 0.2], range(1)), tmp_path)
    with pytest.raises(lincon.LinconError, match="--dof"):
        scaling.scaling(few)


# The paper's tables.


def test_the_papers_setting_has_the_papers_dof():
    wanted = reproduce.cells(TABLES["baselines"], ["resnet18", "resnet34"], range(1))
    assert (
        Cell("resnet34", "rpg", 11_160_576, 0) in wanted
        and Cell("resnet18", "vanilla", None, 0) in wanted
    )
    wanted = reproduce.cells(TABLES["dof-accuracy"], ["resnet18", "resnet34"], range(1))
    assert {cell.dof for cell in wanted} == {2_359_296, None}


def test_smaller_models_have_the_same_shares():
    wanted = reproduce.cells(TABLES["dof-accuracy"], ["resnet-small", "resnet-medium"], range(1))
    assert {(cell.model, cell.dof) for cell in wanted if cell.scheme == "rpg"} == {
        ("resnet-small", 0.211),
        ("resnet-medium", 0.111),
    }


@pytest.mark.parametrize(
    "table", [name for name in TABLES if name not in ("pruning", "quantization")]
)
def test_a_table_has_the_papers_figures_beside_ours(table, tmp_path):
    models = ["resnet-small", "resnet-small"]
    sweep = Sweep(Recipe(epochs=1), reproduce.cells(TABLES[table], models, range(1)), tmp_path)
    result = reproduce.reproduce(TABLES[table], models, sweep)
    assert "digits" in result.title and len(result.rows) == len(TABLES[table].rows)
    for row, paper in zip(result.rows, TABLES[table].rows, strict=True):
        assert row[0] == paper.label
        assert row[-len(paper.paper) :] == tuple("–" if x is None else str(x) for x in paper.paper)
    text = (tmp_path / "table.md").read_text()
    assert "paper" in text and all(note in text for note in result.notes)


def test_an_unknown_table_is_refused():
    with pytest.raises(lincon.LinconError, match="baselines"):
        reproduce.find_table("table-9")


def paired_runs(better, seeds=6):
    """Runs of three schemes on two DoF that share the noise of a seed; "random" is worse by ``better``."""
    found = []
    noise = np.random.default_rng(0).normal(0, 0.02, (seeds, 4))
    for seed in range(seeds):
        for dof in (0.1, 0.5):
            for number, (scheme, lead) in enumerate({"rpg": 0.0, "random": -better}.items()):
                score = 0.85 + noise[seed, 3] + lead + noise[seed, number] / 50
                found.append(scored(scheme, seed, dof, score))
        found.append(scored("vanilla", seed, None, 0.9 + noise[seed, 3]))
    return found


def scored(scheme, seed, asked, score):
    return run(scheme, asked, seed, test=(score,), loss=(1.0,))


def test_a_table_claims_what_its_pairs_decide():
    result = compare.summarise(paired_runs(0.01), "title", MEASURES, {"accuracy": 0.01})
    assert result.header.count("minus rpg's") == 2
    by_scheme = {row[:1]: row for row in result.rows}
    random, vanilla = by_scheme[("random",)], by_scheme[("vanilla",)]
    assert -1.1 < float(random[4].split()[0]) < -0.9 and random[4].endswith("*")
    assert 0.009 < float(random[6].split()[0]) < 0.011 and random[6].endswith("*")
    assert vanilla[4] == "–"  # which of the two rings it is compared with is not said
    assert "corrected for the 4 comparisons" in result.notes[0]
    entry = next(e for e in result.numbers["table"] if e["scheme"] == "random")
    assert entry["differences"]["accuracy"]["pairs"] == 6


def test_a_table_claims_nothing_that_its_pairs_leave_open():
    result = compare.summarise(paired_runs(0.0), "title", MEASURES, {"accuracy": 0.01})
    assert not any(cell.endswith("*") for row in result.rows for cell in row)


def test_one_seed_has_no_differences():
    result = compare.summarise(paired_runs(0.01, seeds=1), "title", MEASURES)
    assert "minus rpg's" not in result.header and result.notes == []
