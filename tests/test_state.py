"""BEHAVIOURS 9-20: state, files, copies."""

import copy
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lincon
from lincon.generators import available
from tests.cases import GIVEN, OPTIONS, make
from tests.models import Raw, Reads, Tied, convnet, images
from tests.resealed import resealed

GOLDEN = Path(__file__).parent / "golden"


def constrained(seed=3, **kwargs):
    model = convnet().eval()
    lincon.constrain(model, "ring", **{"dof": 0.1, "seed": seed, **kwargs})
    return model


def test_state_dict_holds_the_free_vector_once_and_nothing_else_of_g():
    model = constrained()
    state = model.state_dict()
    assert [k for k in state if "weight" in k] == ["1.weight"] and state["free"].shape == (698,)
    assert not any("parametrizations" in key for key in state)
    assert sum(p.numel() for p in model.parameters()) == lincon.summary(model).total == 698 + 50


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_file_is_the_free_vector_the_rest_and_a_small_header(name, tmp_path):
    model = convnet()
    sized = {} if name not in GIVEN else None
    if sized is None:
        pytest.skip("stores its G, which no seed can rebuild")
    constraint = lincon.constrain(model, name, dof=1.0 if name == "identity" else 0.1)
    size = lincon.save(model, tmp_path / "m.safetensors")
    rest = sum(t.numel() * t.element_size() for k, t in model.state_dict().items() if k != "free")
    assert (
        size == (tmp_path / "m.safetensors").stat().st_size <= 4 * constraint.dof + rest + 64 * 1024
    )


def test_safetensors_saves_the_state_dict(tmp_path):
    model = constrained()
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    other = constrained(seed=3)
    with torch.no_grad():
        other.free.zero_()
    other.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    assert torch.equal(other(images()), model(images()))


@pytest.mark.parametrize("name", sorted(OPTIONS))
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_reloads_bit_for_bit(name, scope, dtype, tmp_path):
    for options in OPTIONS[name]:
        model, fresh = (convnet().eval().to(dtype) for _ in range(2))
        if name in GIVEN:
            recipe = lambda rows, dof, seed: make(name, rows, 3, 0, {})  # noqa: E731
            lincon.constrain(model, recipe, where="0.weight", scale=None)
        else:
            lincon.constrain(
                model, name, dof=1.0 if name == "identity" else 0.3, scope=scope, seed=11, **options
            )
        lincon.save(model, tmp_path / "m.safetensors")
        lincon.load(fresh, tmp_path / "m.safetensors")
        assert torch.equal(fresh(images().to(dtype)), model(images().to(dtype)))
        assert fresh.state_dict().keys() == model.state_dict().keys()
        lincon.load(model, tmp_path / "m.safetensors")  # into one that is constrained the same way


def test_a_file_reloads_in_another_process_with_other_threads(tmp_path):
    model = constrained(dof=0.3)
    lincon.save(model, tmp_path / "m.safetensors")
    lincon.merge(model)
    torch.save(dict(model.state_dict()), tmp_path / "weights.pt")
    code = (
        "import torch, lincon; torch.set_num_threads(1); from tests.models import convnet;"
        f"m = convnet(); lincon.load(m, r'{tmp_path}/m.safetensors'); lincon.merge(m);"
        f"w = torch.load(r'{tmp_path}/weights.pt', weights_only=True);"
        "assert all(torch.equal(w[k], v) for k, v in m.state_dict().items())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("name", available())
def test_golden_files_load_as_they_were_saved(name):
    """Files of format 1 and what they must generate, for ever; tests/golden/make.py wrote them."""
    files = sorted(GOLDEN.glob(f"{name}-*.safetensors"))
    assert len(files) == len(OPTIONS[name])
    for file in files:
        model = Raw()
        lincon.load(model, file)
        lincon.merge(model)
        expected = load_file(GOLDEN / f"weights.{file.name}")
        for key, value in model.state_dict().items():
            exact = lincon.generators.get(
                name
            ).disjoint  # the others sum, and sums may be reordered
            torch.testing.assert_close(
                value, expected[key], rtol=0 if exact else 1e-6, atol=0 if exact else 1e-7
            )


@pytest.mark.parametrize("file", sorted((GOLDEN / "version-1").iterdir()), ids=lambda f: f.name)
def test_a_file_of_an_earlier_version_is_refused_by_name(file):
    inner = {"mask": "ring", "part": "ring"}.get(name := file.name.split("-")[0], name)
    model, before = Raw(), Raw().state_dict()
    with pytest.raises(lincon.FileError, match=f"'{inner}' of version 1 .* which has version 2"):
        lincon.load(model, file)
    assert model.state_dict().keys() == before.keys()


def test_config_is_plain_json():
    for generator in (make(n, 50, 7, 3, o) for n in available() for o in OPTIONS[n]):
        assert json.loads(json.dumps(generator.spec())) == generator.spec()


def test_options_of_a_newer_version_are_named_in_a_warning():
    spec = make("ring", 50, 7, 3, {}).spec()
    spec["options"]["from_the_future"] = 1
    with pytest.warns(lincon.LinconWarning, match="from_the_future"):
        lincon.generators.build(spec)
    with pytest.raises(lincon.FileError, match="version 99"):
        lincon.generators.build({**spec, "version": 99})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h["constraints"][0]["groups"][0].update(fingerprint="0" * 64), "another G"),
        (lambda h, t: h["constraints"][0]["groups"][0]["generator"].update(seed=4), "another G"),
        (
            lambda h, t: h["constraints"][0]["groups"][0]["generator"].update(version=1),
            "of version 1 ",
        ),
        (
            lambda h, t: h["constraints"][0]["groups"][0]["generator"].update(name="vera"),
            "No generator 'vera'",
        ),
        (lambda h, t: h.update(format=4), "format 4"),
        (lambda h, t: h.pop("constraints"), "damaged"),
        (lambda h, t: t.update(free=torch.zeros(5)), "do not agree"),
        (lambda h, t: t.pop("0.bias"), r"0\.bias"),
        (
            lambda h, t: h["constraints"][0]["groups"][0]["ledger"][0][0].__setitem__(0, "renamed"),
            "renamed",
        ),
        (
            lambda h, t: h["constraints"][0]["groups"][0]["ledger"][0].__setitem__(1, [9, 8]),
            r"0\.weight",
        ),
    ],
)
def test_a_mismatch_raises_and_leaves_the_model_as_it_was(change, message, tmp_path):
    path = tmp_path / "m.safetensors"
    lincon.save(constrained(), path)
    resealed(path, change)
    model = convnet().eval()
    keys, out = list(model.state_dict()), model(images())
    with pytest.raises(lincon.LinconError, match=message):
        lincon.load(model, path)
    assert list(model.state_dict()) == keys and torch.equal(model(images()), out)
    assert not lincon.constraints(model)


def test_a_truncated_or_altered_file_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    lincon.save(constrained(), path)
    whole = path.read_bytes()
    for damaged, message in (
        (whole[:-3], "not a whole"),
        (whole[:40], "not a whole"),
        (b"", "not a whole"),
        (whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], "altered"),
        (whole.replace(b'\\"seed\\":3', b'\\"seed\\":4'), "altered"),
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(lincon.FileError, match=message):
            lincon.load(convnet(), path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(lincon.FileError, match="not written by lincon"):
        lincon.inspect(path)


def test_another_architecture_is_refused_and_named(tmp_path):
    lincon.save(constrained(), tmp_path / "m.safetensors")
    for model, named in ((Raw(), r"0\.weight"), (nn.Sequential(nn.Conv2d(1, 9, 3)), r"0\.weight")):
        keys = list(model.state_dict())
        with pytest.raises(lincon.FileError, match=named):
            lincon.load(model, tmp_path / "m.safetensors")
        assert list(model.state_dict()) == keys


def test_a_reordered_model_gets_its_own_rows(tmp_path):
    """The ledger is followed by name, so the order in which a model registers its modules does not matter."""

    class Ordered(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(4, 4))

    first, second = Ordered("abc"), Ordered("cab")
    lincon.constrain(first, "ring", dof=0.5)
    lincon.save(first, tmp_path / "m.safetensors")
    lincon.load(second, tmp_path / "m.safetensors")
    for name in "abc":
        assert torch.equal(first.get_submodule(name).weight, second.get_submodule(name).weight)


def test_offset_files_hold_no_base_and_refuse_another(tmp_path):
    model = constrained(offset=True)
    with torch.no_grad():
        model.free.normal_()
    size = lincon.save(model, tmp_path / "m.safetensors")
    assert size < 4 * 698 + 50 * 4 + 3000
    fresh = convnet().eval()
    lincon.load(fresh, tmp_path / "m.safetensors")
    assert torch.equal(fresh(images()), model(images()))
    other = convnet()
    nn.init.normal_(other[0].weight)
    with pytest.raises(lincon.FileError, match="W₀ differs"):
        lincon.load(other, tmp_path / "m.safetensors")


def test_a_plain_or_merged_model_is_a_file_too(tmp_path):
    model = constrained()
    lincon.merge(model)
    lincon.save(model, tmp_path / "m.safetensors")
    fresh = nn.Sequential(*convnet()).eval()
    lincon.load(fresh, tmp_path / "m.safetensors")
    assert (
        torch.equal(fresh(images()), model(images()))
        and lincon.inspect(tmp_path / "m.safetensors").dof == 0
    )


def test_equal_models_make_equal_files(tmp_path):
    for name in "ab":
        lincon.save(constrained(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_values_that_the_model_cannot_hold_are_refused(tmp_path):
    for name, stored, match in (
        ("0.bias", torch.complex64, "complex64 in the file and torch.float32 here"),
        ("0.bias", torch.int32, "int32 in the file and torch.float32 here"),
        (
            "free",
            torch.float64,
            "'free' is torch.float32 here, which cannot hold its values in the file",
        ),
    ):
        model = convnet().double()
        lincon.constrain(model, "ring", dof=10)
        if name == "free":
            with torch.no_grad():
                model.free.mul_(1e300)
        model = model if name == "free" else model.float()
        if name != "free":
            model[0].bias = torch.nn.Parameter(
                model[0].bias.detach().to(stored), requires_grad=False
            )
        lincon.save(model, tmp_path / "model.safetensors")
        fresh = convnet()
        keys = list(fresh.state_dict())
        with pytest.raises(lincon.FileError, match=match):
            lincon.load(fresh, tmp_path / "model.safetensors")
        assert list(fresh.state_dict()) == keys
    lincon.constrain(fresh, "ring", dof=10)  # in the same way as the last file says
    before = fresh.free.detach().clone()
    with pytest.raises(lincon.FileError, match=match):
        lincon.load(fresh, tmp_path / "model.safetensors")
    assert torch.equal(fresh.free, before)


def test_an_owner_that_is_in_the_model_twice_keeps_its_offset_out_of_the_file(tmp_path):
    def twice():
        torch.manual_seed(0)
        block = nn.Linear(4, 4)
        return nn.Sequential(block, block)

    model = twice()
    lincon.constrain(model[0], "ring", dof=3, offset=True)
    with torch.no_grad():
        model[0].free.fill_(0.5)
    lincon.save(model, tmp_path / "m.safetensors")
    assert not [
        name for name in lincon.inspect(tmp_path / "m.safetensors").tensors if "origin" in name
    ]
    again = twice()
    lincon.load(again, tmp_path / "m.safetensors")
    assert torch.equal(again(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_load_warns_of_an_optimizer_that_holds_what_it_replaced(tmp_path):
    model = convnet()
    lincon.constrain(model, "ring", dof=10)
    lincon.save(model, tmp_path / "m.safetensors")
    fresh = convnet()
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    with pytest.warns(lincon.LinconWarning, match="SGD made before still holds"):
        lincon.load(fresh, tmp_path / "m.safetensors")
    del optimizer


def test_files_are_for_all_whom_the_umask_lets(tmp_path):
    model = convnet()
    lincon.constrain(model, "ring", dof=10)
    path = tmp_path / "model.safetensors"
    for mask, mode in ((0o022, 0o644), (0o077, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        lincon.save(model, path)
        os.umask(before)
        assert path.stat().st_mode & 0o777 == mode  # that of the file before, where there is one
        if mask == 0o077:
            path.unlink()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    lincon.save(constrained(), path)
    before = path.read_bytes()

    def broken(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("lincon.files.saving.save_file", broken)
    with pytest.raises(lincon.FileError, match=r"could not be written \(No space.*as it was"):
        lincon.save(constrained(seed=9), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_global_random_state_is_neither_read_nor_moved():
    states = []
    for seed in (1, 2):
        model = convnet()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        lincon.constrain(model, "ring", dof=0.1, seed=5)
        model(images())
        assert torch.equal(torch.get_rng_state(), before)
        states.append(model.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True)
    )


def test_a_dense_checkpoint_loads_as_the_least_squares_fit(tmp_path):
    dense = convnet().eval()
    exact = constrained(dof=1.0)
    exact.load_state_dict(dense.state_dict())
    torch.testing.assert_close(exact(images()), dense(images()), rtol=1e-4, atol=1e-4)
    coarse = constrained()
    with pytest.warns(lincon.LinconWarning, match="relative residual"):
        coarse.load_state_dict(dense.state_dict())
    (constraint,) = lincon.constraints(coarse)
    assert 0.5 < constraint.residual < 1
    refitted = constrained()
    lincon.constraints(refitted)[0].project(dense.state_dict())
    assert torch.equal(refitted.free, coarse.free)


def test_project_names_what_is_missing():
    model = constrained()
    free = model.free.clone()
    with pytest.raises(lincon.TargetError, match=r"3\.weight"):
        lincon.constraints(model)[0].project({"0.weight": torch.zeros(8, 1, 3, 3)})
    with pytest.raises(lincon.TargetError, match="shape"):
        lincon.constraints(model)[0].project({"0.weight": torch.zeros(8, 1, 3)})
    assert torch.equal(model.free, free)


def test_deepcopy_shares_within_the_copy_only():
    model = constrained()
    twin = copy.deepcopy(model)
    before = model(images())
    with torch.no_grad():
        twin.free.mul_(2)
    assert torch.equal(model(images()), before) and not torch.equal(twin(images()), before)
    twin(images()).sum().backward()
    assert twin.free.grad is not None and model.free.grad is None
    lincon.merge(twin)
    assert torch.equal(model(images()), before)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    assert torch.equal(averaged(images()), before)


def test_copying_a_part_without_its_free_vector_is_refused():
    with pytest.raises(lincon.TargetError, match="copy the model that owns it"):
        copy.deepcopy(constrained()[0])


def test_clones_of_a_constrained_layer_are_named():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    lincon.constrain(layer, "ring", dof=0.5)
    model = nn.TransformerEncoder(layer, 2)
    with pytest.warns(lincon.LinconWarning, match="copies of one"):
        assert len(lincon.constraints(model)) == 2


def test_pickle_and_spawn_work():
    for model, inputs in (
        (constrained(), images()),
        (Reads(), torch.randn(2, 6)),
        (nn.GRU(3, 4), torch.randn(5, 2, 3)),
    ):
        if not lincon.constraints(model):
            lincon.constrain(model, "ring", dof=0.5)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
        expected, got = model(inputs), twin(inputs)
        pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (expected, got)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        lincon.merge(twin)


def test_meta_and_back_regenerates_everything():
    model = constrained()
    state, expected = {k: v.clone() for k, v in model.state_dict().items()}, model(images())
    model.to("meta")
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    assert torch.equal(model(images()), expected)


def test_summary_counts_every_free_vector_once():
    model = Tied()
    lincon.constrain(model, "ring", dof=100)
    report = lincon.summary(model)
    assert (report.dof, report.rows, report.unconstrained, report.total) == (100, 156, 6, 106)
    assert report.resident == 4 * 106 and report.dense == 4 * (156 + 6)
    assert "embed.weight = head.weight" in str(report)
    plain = lincon.summary(convnet())
    assert plain.dof == 0 and plain.total == sum(p.numel() for p in convnet().parameters())
    wide = nn.Linear(4, 4)
    lincon.constrain(wide, "ring", dof=20)
    assert lincon.summary(wide).unused == 4


def test_inspect_says_what_a_file_holds(tmp_path):
    lincon.save(constrained(), tmp_path / "m.safetensors")
    contents = lincon.inspect(tmp_path / "m.safetensors")
    assert contents.dof == 698 and contents.rows == 6984
    for word in ("dof 698", "ring", "3.weight", "seed=3"):
        assert word in str(contents)


def test_a_file_of_a_part_of_a_model(tmp_path):
    """The owner may be a module inside what is saved."""

    def build():
        torch.manual_seed(0)
        return nn.Sequential(convnet(), nn.Linear(10, 3)).eval()

    model = build()
    lincon.constrain(model[0], "ring", dof=0.1)
    lincon.save(model, tmp_path / "m.safetensors")
    fresh = build()
    lincon.load(fresh, tmp_path / "m.safetensors")
    assert torch.equal(fresh(images()), model(images()))
    assert lincon.constraints(fresh)[0].owner is fresh[0]


def test_tied_tensors_outside_the_constraint_are_saved_once(tmp_path):
    model = Tied()
    lincon.constrain(model, "ring", dof=0.5, where="body.weight")
    lincon.save(model, tmp_path / "m.safetensors")
    fresh = Tied()
    with torch.no_grad():
        fresh.embed.weight.zero_()
    lincon.load(fresh, tmp_path / "m.safetensors")
    assert torch.equal(fresh(torch.tensor([1, 2])), model(torch.tensor([1, 2])))
    assert fresh.head.weight is fresh.embed.weight


def test_nothing_is_unpickled():
    root = Path(lincon.__file__).parent
    for file in [*root.glob("*.py"), *root.glob("generators/*.py")]:
        text = file.read_text()
        assert file.name == "testing.py" or not re.search(
            r"pickle\.load|torch\.load\(|allow_pickle=True", text
        )


def test_warnings_do_not_come_out_of_ordinary_use(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = constrained()
        lincon.save(model, tmp_path / "m.safetensors")
        lincon.load(convnet(), tmp_path / "m.safetensors")
        lincon.merge(model)


def test_nothing_of_torchs_initialisers_writes_to_a_generated_weight():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2)
    before = model[0].weight.detach().clone()
    for name in (
        "normal_",
        "uniform_",
        "constant_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_normal_",
        "zeros_",
    ):
        arguments = (0.5,) if name == "constant_" else ()
        with pytest.raises(lincon.TargetError, match="cannot be written to"):
            getattr(nn.init, name)(model[0].weight, *arguments)
    with pytest.raises(lincon.TargetError, match="cannot be written to"):
        model[0].reset_parameters()
    assert torch.equal(model[0].weight, before)


def test_summary_of_a_quantised_model_counts_merged_weights_in_their_own_type():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2)
    lincon.quantize(model)
    expected = lincon.summary(model).dense
    lincon.merge(model)
    assert sum(t.nbytes for t in (*model.parameters(), *model.buffers())) == expected


def test_a_plugin_that_cannot_be_loaded_is_named_and_breaks_nothing(monkeypatch, tmp_path):
    from importlib.metadata import EntryPoint

    point = EntryPoint("mine", "nomod:Mine", "lincon.generators")
    monkeypatch.setattr("lincon.maps.registry.entry_points", lambda group: [point])
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2)
    lincon.save(model, tmp_path / "m.safetensors")
    warned = pytest.warns(
        lincon.LinconWarning, match="The generator 'mine' of .* cannot be loaded .*nomod"
    )
    with warned, pytest.raises(lincon.UnknownGeneratorError, match="No generator 'rign'"):
        lincon.generators.get("rign")
