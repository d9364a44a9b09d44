"""The indoor task: four ways of sharing, augmentation, masks, commands, predictions."""

import json

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

import lincon
from lincon.tasks.experiments.schemes.scheme import degrees_of_freedom
from lincon.tasks.experiments.training.learner import evaluate
from lincon.tasks.experiments.training.models import build, load
from lincon.tasks.experiments.training.recipe import Cell, Recipe
from lincon.tasks.experiments.training.record import reload
from lincon.tasks.experiments.training.training import train
from lincon.tasks.indoor import predict as predicting
from lincon.tasks.indoor.baseline import baseline
from lincon.tasks.indoor.data import DATA
from lincon.tasks.indoor.data.augment import Augment
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.rooms import Rooms
from lincon.tasks.indoor.data.sets import RayCast
from lincon.tasks.indoor.data.writing import write
from lincon.tasks.indoor.learner import Regressor
from lincon.tasks.indoor.schemes import SCHEMES
from tests.test_cli import call, refused

TINY = "small:width=0.25"
SIZE = (32,)
RECIPE = Recipe(
    "indoor", "rooms:size=32", epochs=1, batch=16, images=32, optimiser="adam", learning_rate=0.003
)
ROWS = "vanilla", "shared-bn", "new-bn", "rpg"


def cell(scheme="rpg", model=TINY, dof=1.0, seed=0):
    return Cell(model, scheme, dof, seed, "indoor")


@pytest.fixture(scope="module", autouse=True)
def few():
    """A test set of 12 rooms is enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayCast, "test_count", 12)
        yield


# Sharing.


@pytest.mark.parametrize("model", [TINY, "small", "resnet18:width=0.1"])
def test_all_rows_of_the_table_have_the_dof_of_one_sub_network(model):
    dofs = {
        scheme: degrees_of_freedom(build(cell(scheme, model), SIZE))
        for scheme in (*ROWS, "rpg-layer", "hash")
    }
    assert set(dofs.values()) == {dofs["vanilla"]}
    assert degrees_of_freedom(build(cell("none", model), SIZE)) == 2 * dofs["vanilla"]


def test_only_vanilla_has_no_cascade_and_only_shared_bn_shares_its_norms():
    models = {scheme: build(cell(scheme), SIZE) for scheme in ROWS}
    assert [models[scheme].copies for scheme in ROWS] == [1, 2, 2, 2]
    norms = {
        scheme: sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        for scheme, model in models.items()
    }
    assert norms["new-bn"] == norms["rpg"] == 2 * norms["shared-bn"] == 2 * norms["vanilla"]


def test_a_ring_a_layer_makes_all_copies_of_the_layer_of_one_ring():
    model = build(cell("rpg-layer"), SIZE)
    constraints = lincon.constraints(model)
    assert len({entry.name for c in constraints for entry in c.ledger}) == sum(
        len(c.ledger) for c in constraints
    )
    for constraint in constraints:
        free = constraint.dof * 2
        assert constraint.rows == free
    first, second = (
        getattr(model.body[copy].encoder.parts[0][0], "0").weight.flatten() for copy in (0, 1)
    )
    ratio = (second.abs().sum() / first.abs().sum()).item()
    torch.testing.assert_close(second.abs().sort().values, ratio * first.abs().sort().values)
    assert not torch.allclose(second, ratio * first)


@pytest.mark.filterwarnings("ignore:dense. a forward makes")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_trains_saves_and_loads(scheme, tmp_path):
    _, run = train(RECIPE, cell(scheme), tmp_path)
    data = RayCast(size=32)
    again = load(cell(scheme), data.shape, tmp_path / "model.safetensors")
    found = evaluate(Regressor(again, data, RECIPE), data)
    assert found["depth_rmse"] == pytest.approx(run.score, rel=1e-5)
    assert found["angle_mean"] == pytest.approx(run.test["angle_mean"][-1], rel=1e-5)


# Data.


def test_data_sets_are_known_by_their_names():
    assert next(iter(DATA)) == "rooms" and "2d-3d-s" in DATA
    with pytest.raises(lincon.LinconError, match="--root"):
        DATA["2d-3d-s"]()
    assert len(RayCast(limit=10**9).train_set) == 10**9


def test_what_is_mirrored_faces_the_other_way():
    """Depth and normals move with the image; only the first component of a normal changes its sign."""
    torch.manual_seed(0)
    place = torch.arange(32.0).expand(64, 32, 32)
    normals = torch.nn.functional.normalize(
        torch.stack([place - 10, place * 0 + 3, place], 1), dim=1
    )
    images = (place / 40 + 0.1).unsqueeze(1).expand(-1, 3, -1, -1)
    changed = Augment()(Batch(images, 1 + place, normals))
    mirrored = changed.depth[:, 0, 0] > 1.5
    assert 20 < mirrored.sum() < 44
    straight = ~mirrored
    assert changed.depth[straight].equal((1 + place)[straight]) and changed.normals[straight].equal(
        normals[straight]
    )
    assert changed.depth[mirrored].equal((1 + place)[mirrored].flip(-1))
    turned = normals[mirrored].flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(changed.normals[mirrored], turned)
    rising = changed.images.mean(1).diff(dim=-1).mean((1, 2)) > 0
    assert rising.equal(straight)


def test_what_is_not_known_stays_so_when_changed():
    torch.manual_seed(0)
    depth, normals = torch.ones(8, 32, 32), torch.ones(8, 3, 32, 32)
    depth[:, 4, 5], normals[:, :, 6, 7] = torch.nan, torch.nan
    changed = Augment()(Batch(torch.rand(8, 3, 32, 32), depth, normals))
    assert (changed.depth.isnan().sum((1, 2)) == 1).all() and (
        changed.normals.isnan().sum((1, 2, 3)) == 3
    ).all()


def test_what_is_behind_the_mask_trains_nothing_and_is_not_measured():
    """The issue's line, on the whole way from batch to gradient and metric."""
    data = RayCast(size=32)
    batch = data.prepared(data.test_set[list(range(4))], training=False)
    depth, normals = batch.depth.clone(), batch.normals.clone()
    depth[:, :10], normals[:, :, :10] = torch.nan, torch.nan
    learner = Regressor(build(cell("rpg"), SIZE), data, RECIPE).eval()

    def gradient_and_errors(images):
        learner.zero_grad()
        seen = Batch(images, depth, normals)
        learner.loss(seen).backward()
        learner.metric.reset()
        learner.update_metric(seen)
        return learner.model.free.grad.clone(), learner.compute_metric()

    gradient, errors = gradient_and_errors(batch.images)
    assert gradient.isfinite().all() and gradient.any() and all(np.isfinite(list(errors.values())))
    depths, _ = learner.model(batch.images)
    known = ~depth.isnan()
    by_hand = (depths[:, -1][known] - depth[known]).square().mean().sqrt()
    assert errors["depth_rmse"] == pytest.approx(float(by_hand), rel=1e-4)


def test_the_mean_is_predicted_without_looking():
    data = RayCast(limit=16, size=32)
    found = baseline(data)
    training = data.train_set[list(range(16))]
    test = data.test_set[list(range(12))]
    mean = training.depth[~training.depth.isnan()].mean()
    known = test.depth[~test.depth.isnan()]
    assert found["depth_rmse"] == pytest.approx(
        float((known - mean).square().mean().sqrt()), rel=1e-4
    )
    assert 30 < found["angle_mean"] < 120


def test_a_written_folder_trains_as_the_rooms_it_was_written_from(tmp_path):
    """Rooms written in the official layout are read again: same image, depth within a step, normals within a degree."""
    rooms = Rooms(24, seed=3, size=32)[list(range(24))]
    for number, area in enumerate(("1", "2", "3", "4", "6", "5a", "5b")):
        part = slice(3 * number, 3 * number + 3)
        write(Batch(*(of[part] for of in rooms)), tmp_path, area)
    data = DATA["2d-3d-s"](root=tmp_path, size=32)
    assert "3 views" not in data.note and "6 views of areas 5a, 5b" in data.note
    read = data.train_set[list(range(15))]
    assert read.images.equal(rooms.images[:15])
    assert (read.depth - rooms.depth[:15]).abs().nan_to_num(0).max() <= 1 / 1024
    assert read.depth.isnan().equal(rooms.depth[:15].isnan())
    arguments = [
        "--data",
        "2d-3d-s:size=32",
        "--root",
        tmp_path,
        "--epochs",
        1,
        "--batch",
        4,
        "--model",
        TINY,
    ]
    result = call("train", "indoor", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "Fold 1: 6 views of areas 5a, 5b for the test" in result.stdout
    assert "--root" in refused("evaluate", tmp_path / "run")


# Training.


class Killed(Exception):
    pass


class KillIn(lightning.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise Killed


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    recipe = Recipe(
        "indoor",
        "rooms:size=32",
        epochs=2,
        batch=16,
        images=32,
        optimiser="adam",
        learning_rate=1e-3,
    )
    whole, run = train(recipe, cell(), tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, cell(), tmp_path / "cut", callbacks=[KillIn()])
    resumed, again = train(recipe, cell(), tmp_path / "cut", resume=True)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert again.test == run.test


# Commands.

QUICK = ["--data", "rooms:size=32", "--images", 32, "--epochs", 1, "--batch", 16]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("indoor")
    result = call("train", "indoor", "--model", TINY, *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    return result, out


def test_train_says_what_it_measured_and_evaluate_finds_it_again(trained):
    result, out = trained
    assert "test depth RMSE (m): " in result.stdout and "test delta < 1.25 %: " in result.stdout
    again = call("evaluate", out)
    assert again.exit_code == 0 and again.stdout.strip() in result.stdout
    assert "flip" in refused("evaluate", out, "--flip")


@pytest.mark.parametrize(
    ("size", "name"), [((96, 64), "wide.jpg"), ((30, 41), "odd.png"), ((8, 300), "tall.png")]
)
def test_predict_writes_depth_and_normals_of_the_pictures_size(trained, tmp_path, size, name):
    Image.fromarray(
        np.random.default_rng(0).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    ).save(tmp_path / name)
    result = call(
        "predict", "indoor", tmp_path / name, "--run", trained[1], "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    stem = name.partition(".")[0]
    with Image.open(tmp_path / f"out/{stem}_depth.png") as depth:
        values = np.asarray(depth)
        assert (
            depth.size == size
            and depth.mode == "I;16"
            and (values > 0).all()
            and (values < 65535).all()
        )
    with Image.open(tmp_path / f"out/{stem}_normals.png") as picture:
        assert picture.size == size and picture.mode == "RGB"
    for kind in ("depth_view", "normals_view"):  # with the key beside
        with Image.open(tmp_path / f"out/{stem}_{kind}.png") as picture:
            assert 500 < max(picture.size) < 1500


def test_predicted_files_hold_what_the_model_found(trained, tmp_path, monkeypatch):
    """By hand: 2.5 m are 1,280 steps; a normal along z is (127.5, 127.5, 255)."""
    depth = torch.full((4, 6), 2.5)
    depth[0, 0] = 500.0  # beyond what 16 bits hold
    normals = torch.zeros(3, 4, 6)
    normals[2] = 1
    monkeypatch.setattr(predicting, "seen", lambda *_: (depth, normals))
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    predicting.predict([tmp_path / "a.png"], trained[1], tmp_path)
    with Image.open(tmp_path / "a_depth.png") as picture:
        assert (
            np.asarray(picture)[0, 0] == 65534 and (np.asarray(picture).flatten()[1:] == 1280).all()
        )
    with Image.open(tmp_path / "a_normals.png") as picture:
        values = np.asarray(picture).astype(int)
        assert (values[..., 2] == 255).all() and (abs(values[..., :2] - 127.5) < 1).all()


def test_a_picture_of_the_training_size_is_seen_as_it_is(trained):
    model, *_ = reload(trained[1])
    data = RayCast(size=32)
    batch = data.test_set[[0]]
    with torch.inference_mode():
        depths, normals = model.eval()(data.prepared(batch, training=False).images)
    depth, directions = predicting.seen(
        model, Image.fromarray(batch.images[0].permute(1, 2, 0).numpy()), 32
    )
    torch.testing.assert_close(depth, depths[0, -1])
    torch.testing.assert_close(directions, normals[0, -1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "indoor", "nothing.png"], ["nothing.png"]),
        (["predict", "indoor", "PICTURE", "PICTURE"], ["one name"]),
        (["predict", "indoor", "PICTURE", "--run", "nowhere"], ["nowhere", "lincon train"]),
        (["train", "indoor", "--model", "hourglass"], ["'hourglass'", "small"]),
        (["train", "indoor", "--model", "small:copies=0"], ["copies"]),
        (["train", "indoor", "--data", "rooms:size=50"], ["50", "size"]),
        (["train", "indoor", "--data", "rooms:size=8"], ["size=8"]),
        (["train", "indoor", "--data", "2d-3d-s:fold=4", "--root", "."], ["fold 4"]),
        (["train", "indoor", "--scheme", "shared"], ["'shared'", "shared-bn"]),
        (["train", "indoor", "--dof", "3.0"], ["dof"]),
        (["reproduce", "multitask", "--model", "small,resnet18"], ["--model"]),
        (["generalization", "indoor", "--objectnet", "x"], ["--objectnet"]),
    ],
)
def test_bad_input_is_one_line(arguments, said, trained, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (9, 9)).save(picture)
    named = [str(picture) if word == "PICTURE" else word for word in arguments]
    run = ["--run", trained[1]] if arguments[0] == "predict" and "--run" not in arguments else []
    message = refused(*named, *run, "--out", tmp_path / "out")
    assert all(word in message for word in said), message


def test_a_run_of_another_task_predicts_no_depth(trained, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert "indoor, not of pose" in refused(
        "predict", "pose", tmp_path / "a.png", "--run", trained[1]
    )


@pytest.mark.long
def test_the_table_of_the_paper_has_its_four_rows(tmp_path):
    result = call(
        "reproduce", "multitask", "--model", TINY, *QUICK, "--seeds", 2, "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["table"]
    assert [row["paper: depth RMSE %"] for row in rows] == ["25.5", "24.7", "24.0", "22.8"]
    assert [row["paper: normal RMSE %"] for row in rows] == ["41.0", "40.3", "39.4", "39.1"]
    assert len({row["dof"] for row in rows}) == 1
    mine = [run["test"]["depth_rmse"][-1] for run in results["runs"] if run["scheme"] == "rpg"]
    assert rows[3]["test depth RMSE (m)"].startswith(f"{sum(mine) / 2:.2f} ± ")
    assert "without looking" in (tmp_path / "table.md").read_text()
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.width > 500 and picture.height > 500


def test_the_gap_of_errors_is_positive_where_the_test_is_worse(tmp_path):
    model = ["--model", TINY, "--schemes", "vanilla", "--seeds", 1]
    result = call("generalization", "indoor", *model, *QUICK, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    (run,) = results["runs"]
    gap = results["table"][0]["gap"][0]
    assert gap == pytest.approx(run["test"]["depth_rmse"][-1] - run["train"]["depth_rmse"])
