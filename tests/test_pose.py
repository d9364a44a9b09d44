"""The pose task: sharing between sub-networks, augmentation, loss, commands, predictions."""

import json
from functools import partial

import lightning
import pytest
import torch
from PIL import Image
from torch.nn.functional import mse_loss

import lincon
from lincon.tasks.experiments.data.cached import Cached
from lincon.tasks.experiments.schemes.body import body_weights, count_parameters, one_sub_network
from lincon.tasks.experiments.schemes.scheme import degrees_of_freedom
from lincon.tasks.experiments.sweeps import reproduce
from lincon.tasks.experiments.training.learner import evaluate
from lincon.tasks.experiments.training.models import build, load
from lincon.tasks.experiments.training.recipe import Cell, Recipe
from lincon.tasks.experiments.training.record import reload
from lincon.tasks.experiments.training.training import train
from lincon.tasks.pose import predict as predicting
from lincon.tasks.pose.data import DATA
from lincon.tasks.pose.data.augment import Augment
from lincon.tasks.pose.data.batch import Batch
from lincon.tasks.pose.data.people import central
from lincon.tasks.pose.data.sets import DrawnFigures
from lincon.tasks.pose.heatmaps import targets
from lincon.tasks.pose.learner import Pose, find
from lincon.tasks.pose.models import architecture
from lincon.tasks.pose.models.cascade import Cascade
from lincon.tasks.pose.schemes import SCHEMES
from lincon.tasks.pose.skeleton import BONES, JOINTS, MIRRORED
from lincon.tasks.pose.tables import TABLES
from tests.test_cli import call, refused
from tests.test_pose_data import pictures_of, write_mpii

TINY = "hourglass-small:channels=8,depth=1"
SIZE = (32,)
RECIPE = Recipe(
    "pose", "figures:size=32", epochs=1, batch=16, images=32, optimiser="adam", learning_rate=0.003
)


EXACT = [name for name in SCHEMES if name not in ("small", "lego", "deep-compression")]


def cell(scheme="rpg", stacks=2, model=TINY, dof=1.0, seed=0):
    return Cell(f"{model},stacks={stacks}", scheme, dof, seed, "pose")


@pytest.fixture(scope="module", autouse=True)
def few():
    """A test set of 24 figures is enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DrawnFigures, "test_count", 24)
        yield


# Sharing.


@pytest.mark.parametrize("model", [TINY, "hourglass-small:channels=8,depth=2"])
def test_sharing_keeps_the_dof_of_one_and_copies_have_their_own(model):
    """The issue's line: 2x and 4x of `rpg` and `shared` have the DoF of 1x, `none` has 2x and 4x."""
    one = degrees_of_freedom(build(cell("none", 1, model), SIZE))
    for stacks in (1, 2, 4):
        dofs = {
            scheme: degrees_of_freedom(build(cell(scheme, stacks, model), SIZE)) for scheme in EXACT
        }
        assert dofs.pop("none") == stacks * one
        assert set(dofs.values()) == {one}, dofs


def test_the_full_size_has_the_dof_of_one_sub_network():
    """Weights of convolutions alone: 3,073,808 less biases and norms."""
    with torch.device("meta"):
        nets = {n: architecture(f"hourglass:stacks={n}")(256) for n in (1, 2, 4)}
    biases = sum(p.numel() for name, p in nets[1].body[0].named_parameters() if p.dim() == 1)
    assert one_sub_network(nets[1]) == 3_073_808 - biases
    assert [count_parameters(net, body_weights(net)) for net in nets.values()] == [
        n * one_sub_network(nets[1]) for n in (1, 2, 4)
    ]
    with torch.device("meta"):
        machine = architecture("cpm")(368)
    assert count_parameters(machine, body_weights(machine)) == 5 * one_sub_network(machine)


def test_the_copies_of_a_ring_are_permutations_of_each_other_and_differ():
    model = build(cell("rpg", 3), SIZE)
    (constraint,) = lincon.constraints(model)
    scales = {entry.name: entry.scale for entry in constraint.ledger}
    laps = [
        torch.cat(
            [
                (w / scales[n]).flatten()
                for n, w in constraint.weights().items()
                if n.startswith(f"body.{k}.")
            ]
        )
        for k in range(3)
    ]
    for lap in laps[1:]:
        torch.testing.assert_close(lap.abs().sort().values, laps[0].abs().sort().values)
        assert (lap - laps[0]).abs().mean() > 0.5 * laps[0].abs().mean()


def test_plain_copies_have_the_same_weights_and_norms_of_their_own():
    model = build(cell("rpg-plain", 2), SIZE)
    first, second = model.body
    ratio = (
        first.scores.weight / second.scores.weight
    )  # scales are matched to each tensor's own initialisation
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
    assert 0.8 < ratio.flatten()[0] < 1.25
    assert first.features[3].weight is not second.features[3].weight


def test_only_shared_has_one_sub_network():
    shared, ring = build(cell("shared", 4), SIZE), build(cell("rpg", 4), SIZE)
    assert len(shared.body) == 1 and len(ring.body) == 4
    assert len(shared.links) == len(ring.links) == 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_trains_saves_and_loads(scheme, tmp_path):
    model, run = train(RECIPE, cell(scheme), tmp_path)
    data = DrawnFigures(size=32)
    again = load(cell(scheme), data.shape, tmp_path / "model.safetensors")
    found = evaluate(Pose(again, data, RECIPE), data)
    assert found["pckh"] == pytest.approx(run.score, abs=1e-6)
    assert model.training is again.training


# Data.


def test_data_sets_are_known_by_their_names():
    assert next(iter(DATA)) == "figures" and {"mpii", "lsp", "lsp-extended"} <= set(DATA)
    for name in list(DATA)[1:]:
        with pytest.raises(lincon.LinconError, match="--root"):
            DATA[name]()


def test_there_is_no_end_of_figures():
    assert len(DrawnFigures(limit=10**9).train_set) == 10**9
    with pytest.raises(lincon.LinconError, match="images"):
        DrawnFigures(limit=0)


def test_what_is_remembered_is_what_was_drawn():
    figures = DrawnFigures(limit=40, size=32).train_set.source
    kept = Cached(figures)
    for indices in ([3, 1], [1, 7, 7], [0], [7, 3, 0]):
        for seen, drawn in zip(kept[indices], figures[indices], strict=True):
            assert seen.equal(drawn)
    assert kept.subset(torch.tensor([5, 2]))[[0]].joints.equal(figures[[5]].joints)


def dots(joints, size):
    """Pictures (n, 3, size, size) with the first joint of each in white."""
    images = torch.zeros(len(joints), 3, size, size)
    for image, (x, y) in zip(images, joints[:, 0, 0].int().tolist(), strict=True):
        image[:, y - 1 : y + 2, x - 1 : x + 2] = 1
    return images


def test_joints_move_with_the_picture():
    torch.manual_seed(3)
    joints = torch.randint(20, 44, (64, 1, 16, 2)).float()
    batch = Batch(dots(joints, 64), joints, torch.ones(64, 1, 16, dtype=torch.bool), torch.ones(64))
    changed = Augment()(batch)
    light = (
        changed.images.mean(1) - changed.images.mean(1).amin((1, 2), keepdim=True) - 0.3
    ).clamp(min=0)
    grid = torch.arange(64.0)
    centre = (
        torch.stack([(light.sum(1) * grid).sum(1), (light.sum(2) * grid).sum(1)], 1)
        / light.sum((1, 2))[:, None]
    )
    straight = (changed.joints[:, 0, 0] - centre).norm(
        dim=1
    ) < 0.4  # the white joint is still the first
    mirrored = (changed.joints[:, 0, MIRRORED[0]] - centre).norm(
        dim=1
    ) < 0.4  # or it became the other ankle
    assert (straight ^ mirrored).all() and 20 < mirrored.sum() < 44
    assert (changed.head > 0.74).all() and (changed.head < 1.26).all()


def test_what_is_not_known_stays_so_when_mirrored():
    torch.manual_seed(0)
    known = torch.zeros(64, 1, 16, dtype=torch.bool)
    known[:, :, 10] = True
    batch = Batch(torch.rand(64, 3, 32, 32), torch.rand(64, 1, 16, 2) * 32, known, torch.ones(64))
    changed = Augment()(batch)
    sides = changed.known[:, 0].nonzero()[:, 1]
    assert set(sides.tolist()) == {10, MIRRORED[10]} and len(sides) == 64
    assert (changed.joints[~changed.known] == 0).all()


def test_the_centre_is_cut_out_with_its_joints():
    images = torch.arange(48.0 * 48).view(1, 1, 48, 48).expand(1, 3, 48, 48)
    joints = torch.tensor([20.0, 30.0]).expand(1, 1, 16, 2)
    cut = central(Batch(images, joints, torch.ones(1, 1, 16, dtype=torch.bool), torch.ones(1)), 32)
    x, y = cut.joints[0, 0, 0].int().tolist()
    assert cut.images.shape[-1] == 32 and cut.images[0, 0, y, x] == images[0, 0, 30, 20]


def test_the_skeleton_is_its_own_mirror_image():
    assert [MIRRORED[MIRRORED[j]] for j in range(16)] == list(range(16))
    for joint, other in enumerate(MIRRORED):
        assert JOINTS[other] == JOINTS[joint].replace("left", "_").replace("right", "left").replace(
            "_", "right"
        )
    bones = {frozenset(bone) for bone in BONES}
    assert {frozenset(MIRRORED[end] for end in bone) for bone in bones} == bones


# Loss.


def test_the_loss_is_that_of_every_output():
    data = DrawnFigures(size=32)
    batch = data.prepared(data.test_set[[0, 1]], training=False)
    learner = Pose(build(cell("none", 2), SIZE), data, RECIPE)
    wanted = targets(batch.joints[:, :1], batch.known[:, :1], (8, 8), 4)
    outputs = learner.model(batch.images)
    expected = mse_loss(outputs[:, 0], wanted) + mse_loss(outputs[:, 1], wanted)
    torch.testing.assert_close(learner.loss(batch), expected)


def test_the_first_stage_of_a_machine_looks_for_everybody():
    data = DrawnFigures(size=32, people=3)
    batch = data.prepared(data.test_set[list(range(8))], training=False)
    model = partial(architecture("cpm:stages=2"), 32)(width=0.1).eval()
    learner = Pose(model, data, RECIPE)
    parts = list(model.parts)
    outputs = model(batch.images)
    everybody = learner.wanted(batch, True, outputs)
    alone = learner.wanted(batch, False, outputs)
    assert (everybody[:, :14] >= alone[:, :14]).all() and (everybody > alone).any()
    torch.testing.assert_close(
        alone[:, :14], targets(batch.joints[:, :1, parts], batch.known[:, :1, parts], (4, 4), 8)
    )
    torch.testing.assert_close(alone[:, 14], 1 - alone[:, :14].amax(1))
    torch.testing.assert_close(
        learner.loss(batch), mse_loss(outputs[:, 0], everybody) + mse_loss(outputs[:, 1], alone)
    )


def test_a_perfect_network_finds_every_joint_in_sight():
    data = DrawnFigures(size=64)
    batch = data.test_set[list(range(24))]

    class Perfect(Cascade):
        stride, parts, background, everybody = 2, tuple(range(16)), False, (False,)

        def forward(self, images):
            return targets(batch.joints[:, :1], batch.known[:, :1], (32, 32), 2).unsqueeze(1)

    points, scores = find(Perfect(), batch.images.float())
    inside = ((batch.joints[:, 0] > 2) & (batch.joints[:, 0] < 61)).all(
        -1
    )  # not in an outermost cell
    assert ((points - batch.joints[:, 0]).abs().amax(-1) <= 0.51)[inside].all() and (
        scores[inside] > 0.7
    ).all()


def test_the_flip_test_is_the_mean_of_both():
    data = DrawnFigures(size=32)
    images = data.prepared(data.test_set[[0, 1, 2]], training=False).images
    model = build(cell("none", 1), SIZE).eval()
    points, scores = find(model, images, flip=True)
    mirrored, same = find(model, images.flip(-1), flip=True)
    turned = mirrored[:, list(MIRRORED)] * torch.tensor([-1.0, 1.0]) + torch.tensor([31.0, 0.0])
    torch.testing.assert_close(scores, same[:, list(MIRRORED)], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(points, turned, atol=1e-3, rtol=0)


# Training.


class Killed(Exception):
    pass


class KillIn(lightning.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            raise Killed


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    recipe = Recipe(
        "pose",
        "figures:size=32",
        epochs=2,
        batch=16,
        images=32,
        optimiser="rmsprop",
        learning_rate=1e-3,
    )
    whole, run = train(recipe, cell(), tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, cell(), tmp_path / "cut", callbacks=[KillIn(1)])
    resumed, again = train(recipe, cell(), tmp_path / "cut", resume=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert again.test == run.test and again.train == run.train


# Commands.

QUICK = ["--data", "figures:size=32", "--images", 32, "--epochs", 1, "--batch", 16]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("pose")
    result = call("train", "pose", "--model", f"{TINY},stacks=2", *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    return result, out


def test_train_says_what_it_measured(trained):
    result, out = trained
    assert "PCKh@0.5 %" in result.stdout and "wrist %" in result.stdout and "ring" in result.stdout
    model, there, recipe, shape = reload(out)
    assert there.scheme == "rpg" and recipe.data == "figures:size=32" and shape == [32]
    assert lincon.constraints(model)


def test_predict_draws_and_writes_joints(trained, tmp_path):
    picture = tmp_path / "somebody.jpg"
    Image.new("RGB", (200, 100), (90, 120, 60)).save(picture)
    result = call("predict", "pose", picture, "--run", trained[1], "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out/somebody.png") as drawn:
        assert drawn.size == (200, 100)
    written = json.loads((tmp_path / "out/somebody.json").read_text())
    assert list(written["joints"]) == list(JOINTS) and written["box"] == [99.5, 49.5, 200]
    assert all(-3 <= joint["x"] <= 203 for joint in written["joints"].values())


def test_predicted_joints_are_in_pixels_of_the_picture(trained, tmp_path, monkeypatch):
    """By hand: pixel 15.5 of 32 is the middle of the box; one pixel there is 80 / 32 = 2.5 of the picture's."""
    points = torch.full((1, 16, 2), 15.5)
    points[0, 3] = torch.tensor([0.0, 31.0])
    monkeypatch.setattr(predicting, "seen", lambda *_: (points, torch.ones(1, 16)))
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    predicting.predict([tmp_path / "a.png"], trained[1], tmp_path / "out", (250.0, 60.0, 80.0))
    joints = json.loads((tmp_path / "out/a.json").read_text())["joints"]
    assert joints["pelvis"] == {"x": 250, "y": 60, "score": 1, "drawn": True}
    assert joints["left hip"] == {"x": 211.25, "y": 98.75, "score": 1, "drawn": True}


def test_the_model_sees_the_box(trained, tmp_path, monkeypatch):
    """The same pixels elsewhere in a larger picture, with a box around them, are the same to the model."""
    small = Image.fromarray(DrawnFigures(size=32).test_set[[0]].images[0].permute(1, 2, 0).numpy())
    large = Image.new("RGB", (100, 80))
    large.paste(small, (40, 20))
    seen = []
    monkeypatch.setattr(
        predicting,
        "seen",
        lambda _, images, flip: seen.append(images) or (torch.zeros(1, 16, 2), torch.ones(1, 16)),
    )
    for name, picture, box in (("small", small, None), ("large", large, (55.5, 35.5, 32))):
        picture.save(tmp_path / f"{name}.png")
        predicting.predict([tmp_path / f"{name}.png"], trained[1], tmp_path / "out", box)
    assert seen[0].equal(seen[1])


def test_a_box_says_where_the_person_is(trained, tmp_path):
    picture, out = tmp_path / "crowd.png", tmp_path / "out"
    Image.new("RGB", (300, 300)).save(picture)
    box = ["--box", "250,60,80", "--flip"]
    assert call("predict", "pose", picture, "--run", trained[1], *box, "--out", out).exit_code == 0
    joints = json.loads((out / "crowd.json").read_text())["joints"].values()
    assert all(205 <= joint["x"] <= 295 and 15 <= joint["y"] <= 105 for joint in joints)


def test_evaluate_measures_the_saved_model_again(trained):
    result, out = trained
    plain, flipped = call("evaluate", out), call("evaluate", out, "--flip")
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.strip() in result.stdout
    assert flipped.exit_code == 0 and flipped.stdout.count("test ") == 9


def test_mpii_is_trained_on_and_the_split_is_said(tmp_path):
    write_mpii(tmp_path, pictures_of(4))
    for number in range(4):
        Image.new("RGB", (120, 120), (60 * number, 90, 120)).save(
            tmp_path / f"images/{number:03}.jpg"
        )
    arguments = [
        "--data",
        "mpii:size=32",
        "--root",
        tmp_path,
        "--epochs",
        1,
        "--batch",
        2,
        "--model",
        TINY,
    ]
    result = call("train", "pose", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "1 people for validation, in one photo of 8" in result.stdout
    assert call("evaluate", tmp_path / "run", "--root", tmp_path).exit_code == 0
    assert "--root" in refused("evaluate", tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "pose", "nobody.png"], ["nobody.png"]),
        (["predict", "pose", "PICTURE", "--box", "1,2"], ["--box", "X,Y,SIDE"]),
        (["predict", "pose", "PICTURE", "--box", "1,2,0"], ["--box", "positive"]),
        (["predict", "pose", "PICTURE", "--run", "nowhere"], ["nowhere", "lincon train"]),
        (["predict", "pose", "PICTURE", "PICTURE"], ["one name"]),
        (["train", "pose", "--model", "resnet18"], ["'resnet18'", "hourglass"]),
        (["train", "pose", "--data", "digits"], ["'digits'", "figures"]),
        (["train", "pose", "--data", "figures:sise=3"], ["sise", "size"]),
        (["train", "pose", "--data", "figures:size=50"], ["50", "size"]),
        (["train", "pose", "--scheme", "vanilla"], ["'vanilla'", "none"]),
        (["train", "prose"], ["'prose'", "pose"]),
        (["train", "pose", "--data", "mpii"], ["--root"]),
        (["generalization", "pose", "--objectnet", "x"], ["--objectnet"]),
        (["reproduce", "pose", "--model", "hourglass,cpm"], ["--model"]),
        (["train", "pose", "--dof", "3.0"], ["dof"]),
    ],
)
def test_bad_input_is_one_line(arguments, said, trained, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (9, 9)).save(picture)
    named = [str(picture) if word == "PICTURE" else word for word in arguments]
    run = ["--run", trained[1]] if arguments[0] == "predict" and "--run" not in arguments else []
    message = refused(*named, *run, "--out", tmp_path / "out")
    assert all(word in message for word in said), message


def test_a_run_of_another_task_predicts_no_pose(tmp_path):
    call("train", "--epochs", 1, "--images", 64, "--out", tmp_path / "digits")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert "flip" in refused("evaluate", tmp_path / "digits", "--flip")
    assert "classification" in refused(
        "predict", "pose", tmp_path / "a.png", "--run", tmp_path / "digits"
    )


@pytest.mark.long
def test_the_table_of_the_paper_has_its_seven_rows(tmp_path):
    result = call("reproduce", "pose", "--model", TINY, *QUICK, "--seeds", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "results.json").read_text())["table"]
    assert [row["paper: PCKh %"] for row in rows] == [
        "84.7",
        "86.1",
        "86.5",
        "87.1",
        "86.5",
        "87.3",
        "88.0",
    ]
    dofs = [int(row["dof"].replace(",", "")) for row in rows]
    assert [dof / dofs[0] for dof in dofs] == [1, 1, 1, 2, 1, 1, 4]
    assert {"table.md", "results.json", "picture.png", "predictions.png"} <= {
        path.name for path in tmp_path.iterdir()
    }
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.width > picture.height > 500


def test_the_gap_of_pose_is_train_minus_test(tmp_path):
    model = ["--model", f"{TINY},stacks=1"]
    result = call(
        "generalization",
        "pose",
        "--schemes",
        "none",
        *model,
        *QUICK,
        "--seeds",
        2,
        "--out",
        tmp_path,
    )
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    gaps = [100 * (run["train"]["pckh"] - run["test"]["pckh"][-1]) for run in results["runs"]]
    assert results["table"][0]["gap"][0] == pytest.approx(sum(gaps) / 2)


def test_the_paper_is_on_one_model():
    wanted = reproduce.cells(TABLES["pose"], ["hourglass"], range(2))
    assert len(wanted) == 14 and {one.model for one in wanted} == {
        f"hourglass:stacks={n}" for n in (1, 2, 4)
    }
