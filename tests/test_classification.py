"""The classification task: models, data, schemes, and the comparison that continues."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch

import lincon
from lincon.tasks.classification import compare as comparing
from lincon.tasks.classification.data import Digits
from lincon.tasks.classification.models import MODELS, ResNet, body_weights, count, nearest_width
from lincon.tasks.classification.report import HEADER
from lincon.tasks.classification.schemes import SCHEMES, degrees_of_freedom
from lincon.tasks.classification.training import Recipe, Run, build, train

CONSTRAINED = ("ring", "hash", "random", "sparse", "dense")
QUICK = Recipe(epochs=1)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Every scheme, one epoch, two seeds: the comparison and its folder."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("compared")
    return comparing.compare(QUICK, list(SCHEMES), range(2), out), out


def fail_to_train(*_args, **_kwargs):
    raise AssertionError("nothing was to be trained")


# Models.


def test_small_resnet_has_the_parameters_counted_by_hand():
    model = MODELS["resnet-small"](1, 10)
    convs = (8 * 8 + 8 * 8) * 9 + (8 * 16 + 16 * 16) * 9 + 8 * 16 + (16 * 20 + 20 * 20) * 9 + 16 * 20
    norms = 2 * (8 + 2 * 8 + 3 * 16 + 3 * 20)
    assert count(model, body_weights(model)) == convs == 11_536
    assert count(model) == 8 * 9 + convs + norms + 20 * 10 + 10 == 12_082


def test_cifar_resnet18_has_the_published_parameters():
    with torch.device("meta"):
        model = ResNet(3, 100, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
    assert count(model, body_weights(model)) == 11_157_504
    assert count(model) == 11_220_132


def test_only_block_convolutions_are_constrained():
    model = MODELS["resnet-small"](1, 10)
    names = body_weights(model)
    modules = [model.get_submodule(name.removesuffix(".weight")) for name in names]
    assert all(isinstance(module, torch.nn.Conv2d) for module in modules)
    assert {module.kernel_size for module in modules} == {(3, 3), (1, 1)}


def test_a_resnet_maps_images_of_any_channels_to_logits():
    model = ResNet(3, 7, widths=(4, 6), blocks=(1, 2))
    assert model(torch.randn(2, 3, 9, 9)).shape == (2, 7)


@pytest.mark.parametrize("total", [1, 500, 1700, 5000, 12_082, 10**6])
def test_no_width_is_nearer_than_the_nearest(total):
    architecture = partial(MODELS["resnet-small"], 1, 10)
    gap = abs(count(architecture(width=nearest_width(architecture, total))) - total)
    assert gap == min(abs(count(architecture(width=step / 100)) - total) for step in range(1, 101))


# Data.


def test_digits_are_standardised_images_split_by_class():
    data = Digits()
    (train_images, train_labels), (test_images, test_labels) = data.train_set.tensors, data.test_set.tensors
    assert train_images.shape == (1297, 1, 8, 8) and test_images.shape == (500, 1, 8, 8)
    assert abs(train_images.mean()) < 1e-5 and abs(train_images.std() - 1) < 1e-5
    shares = [torch.bincount(labels, minlength=10) / len(labels) for labels in (train_labels, test_labels)]
    assert (shares[0] - shares[1]).abs().max() < 0.002


def test_no_image_is_in_both_parts():
    # scikit-learn's 1,797 images have no duplicates, so equal images would be the same one.
    both = torch.cat([Digits().train_set.tensors[0], Digits().test_set.tensors[0]])
    assert len(both.unique(dim=0)) == 1797


def test_the_order_of_images_depends_on_the_seed_alone():
    first, again, other = (torch.cat([y for _, y in Digits(seed).train_dataloader()]) for seed in (3, 3, 4))
    assert len(first) == 1297 // 64 * 64
    assert first.equal(again) and not first.equal(other)


def test_augmentation_shifts_by_at_most_one_pixel():
    image = torch.zeros(64, 1, 8, 8)
    image[:, :, 4, 4] = 1
    places = Digits().augment(image).nonzero()[:, 2:]
    assert places.min() == 3 and places.max() == 5 and len(places) == 64


# Schemes.


@pytest.mark.parametrize("scheme", CONSTRAINED)
def test_constrained_schemes_have_exactly_the_dof_asked_for(scheme):
    model = build(Recipe(dof=1000), scheme, Digits, seed=0)
    assert degrees_of_freedom(model) == 1000
    assert count(model) == 12_082 - 11_536 + 1000


def test_hash_has_a_free_vector_for_every_layer():
    model = build(QUICK, "hash", Digits, seed=0)
    (constraint,) = lincon.constraints(model)
    assert len(constraint.free) == len(body_weights(MODELS["resnet-small"](1, 10)))


def test_schemes_start_from_the_same_stem_and_head():
    states = [build(QUICK, scheme, Digits, seed=5).state_dict() for scheme in ("vanilla", *CONSTRAINED)]
    for name in ("stem.0.weight", "head.weight"):
        assert all(state[name].equal(states[0][name]) for state in states)


def test_a_dof_of_nothing_is_refused():
    for dof in (0, -3, 0.0, 1.5, float("nan")):
        with pytest.raises(lincon.LinconError, match="dof"):
            build(Recipe(dof=dof), "ring", Digits, seed=0)


# Training.


def test_equal_seeds_give_equal_runs():
    first, second = (train(QUICK, "ring", 1)[1] for _ in range(2))
    assert first.train_loss == second.train_loss and first.test_accuracy == second.test_accuracy


def test_accuracy_is_that_of_the_last_epoch():
    run = Run("ring", 0, 1, 1, 1, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.2, 0.9, 0.7])
    assert run.accuracy == 0.7


def test_the_reported_accuracy_is_that_of_the_trained_model():
    model, run = train(Recipe(epochs=2), "ring", 0)
    images, labels = Digits().test_set.tensors
    with torch.no_grad():
        right = (model.eval()(images).argmax(1) == labels).float().mean()
    assert run.accuracy == pytest.approx(right.item(), abs=1e-6)


def test_training_learns():
    _, run = train(Recipe(epochs=3, learning_rate=0.05), "vanilla", 0)
    assert run.accuracy > 0.5 and run.train_loss[-1] < run.train_loss[0]


# Comparing.


def test_every_scheme_is_in_the_table_at_equal_dof(compared):
    comparison, _ = compared
    assert [line.scheme for line in comparison.table] == list(SCHEMES)
    of = {line.scheme: line for line in comparison.table}
    assert {of[scheme].dof for scheme in CONSTRAINED} == {1154}
    assert {of[scheme].total for scheme in CONSTRAINED} == {1700}
    assert of["vanilla"].total == 12_082 and abs(of["small"].total - 1700) < 100
    assert of["ring"].file_bytes < of["vanilla"].file_bytes


def test_table_numbers_and_picture_are_written(compared):
    _, out = compared
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "results.json", "runs", "table.md"]
    table = (out / "table.md").read_text()
    assert f"| {' | '.join(HEADER)} |" in table and all(f"| {scheme} |" in table for scheme in SCHEMES)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((out / "results.json").read_text())
    assert results["versions"]["torch"] == torch.__version__ and results["machine"]["cpus"]
    assert len(results["runs"]) == 2 * len(SCHEMES) == len(list((out / "runs").iterdir()))


def test_a_finished_comparison_trains_nothing(compared, monkeypatch):
    comparison, out = compared
    monkeypatch.setattr(lightning.Trainer, "fit", fail_to_train)
    assert comparing.compare(QUICK, list(SCHEMES), range(2), out) == comparison


def test_an_interrupted_comparison_continues(tmp_path, monkeypatch):
    def interrupt(self, *_args, **_kwargs):
        raise SystemExit(1)  # as Lightning does on Ctrl-C

    comparing.compare(QUICK, ["vanilla"], [0], tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lightning.Trainer, "fit", interrupt)
        comparing.compare(QUICK, ["vanilla", "ring"], [0], tmp_path)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["vanilla-0.json"]
    before = (tmp_path / "runs/vanilla-0.json").stat().st_mtime_ns
    assert len(comparing.compare(QUICK, ["vanilla", "ring"], [0], tmp_path).runs) == 2
    assert (tmp_path / "runs/vanilla-0.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("other", [Recipe(epochs=2), Recipe(epochs=1, dof=1), Recipe(epochs=1, dof=1.0)])
def test_other_options_in_the_same_folder_are_refused(compared, other):
    _, out = compared
    with pytest.raises(lincon.LinconError, match=r"runs.*other options.*(epochs|dof) is .* there"):
        comparing.compare(other, ["ring"], [0], out)


def test_a_damaged_run_is_named(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/ring-0.json").write_text('{"recipe": {')
    with pytest.raises(lincon.LinconError, match=r"ring-0\.json"):
        comparing.compare(QUICK, ["ring"], [0], tmp_path)


def test_importing_lincon_imports_no_task():
    code = "import lincon, sys; print({'lightning', 'typer', 'lincon.tasks'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_tasks_cannot_be_imported_under_a_second_name(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(lincon.__file__).parents[1]))
    with pytest.raises(ImportError, match=r"lincon\.tasks"):
        __import__("tasks")
