"""Adapters: files of what was trained alone, and W₀ that is drawn from the seed."""

import copy
import json
import pickle
import warnings
import zlib
from base64 import b85encode
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import lincon
from lincon.attaching.drawn import Drawn
from lincon.counter import bits, key
from lincon.files.header import pack, unpack
from lincon.generators import available
from tests.cases import GIVEN, OPTIONS
from tests.models import Raw, convnet, images
from tests.resealed import resealed

GOLDEN = Path(__file__).parent / "golden"
MADE = [
    (name, options)
    for name in available()
    if name not in {"identity", *GIVEN}
    for options in OPTIONS[name]
]


def stack(seed=0, blocks=2, width=32):
    torch.manual_seed(seed)
    block = [nn.Linear(width, width), nn.Tanh(), nn.LayerNorm(width)]
    return nn.Sequential(
        nn.Linear(6, width), *[nn.Sequential(*copy.deepcopy(block)) for _ in range(blocks)]
    )


def adapted(model, **options):
    """A model whose free vectors alone are trained, and have moved."""
    lincon.constrain(model, **{"generator": "ring", "dof": 100, "offset": True, **options})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("free"))
    return moved(model)


def moved(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 8)
    return model


# What the file of an adapter holds.


@pytest.mark.parametrize("offset", [True, False, "seed"])
@pytest.mark.parametrize(("blocks", "scope"), [(2, "model"), (100, "model"), (10, "tensor")])
def test_the_file_of_an_adapter_has_the_size_of_an_adapter(tmp_path, blocks, scope, offset):
    """1 KiB, the trained numbers, 40 bytes a tensor of the model, and 200 a free vector of its own."""
    model = adapted(stack(blocks=blocks), scope=scope, offset=offset)
    tensors = len(list(stack(blocks=blocks).parameters()))
    own = len(lincon.constraints(model)[0].groups)
    size = lincon.save(model, tmp_path / "adapter", only="trained")
    assert size == (tmp_path / "adapter").stat().st_size
    assert size <= 1024 + 4 * 100 + 40 * tensors + 200 * (own if own > 1 else 0)
    assert load_file(tmp_path / "adapter").keys() == {*lincon.constraints(model)[0].free}


def test_a_hundred_numbers_on_a_frozen_model_take_about_a_kilobyte(tmp_path):
    model = adapted(stack(blocks=10, width=128))
    size = lincon.save(model, tmp_path / "adapter", only="trained")
    assert size < 400 + 1024 and lincon.save(model, tmp_path / "whole") > 10 * size


@pytest.mark.parametrize("materialize", ["model", "layer"])
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("offset", [True, False, "seed"])
def test_an_adapter_loads_into_its_base_bit_for_bit(tmp_path, offset, scope, materialize):
    model = adapted(stack(), offset=offset, scope=scope, materialize=materialize)
    lincon.save(model, tmp_path / "adapter", only="trained")
    fresh, x = stack(), torch.randn(4, 6)
    lincon.load(fresh, tmp_path / "adapter")
    assert torch.equal(fresh(x), model(x))
    with torch.no_grad():
        for free in lincon.constraints(fresh)[0].free.values():
            free.zero_()
    lincon.load(fresh, tmp_path / "adapter")  # another adapter of the same kind takes its place
    assert torch.equal(fresh(x), model(x))
    assert torch.equal(lincon.merge(fresh)(x), model(x))


def test_an_adapter_is_loaded_after_the_file_of_its_base(tmp_path):
    lincon.save(stack(), tmp_path / "base")
    model = adapted(stack())
    lincon.save(model, tmp_path / "adapter", only="trained")
    other, x = stack(seed=9), torch.randn(4, 6)
    with pytest.raises(lincon.FileError, match="not the model that it was trained on"):
        lincon.load(other, tmp_path / "adapter")
    lincon.load(other, tmp_path / "base")
    lincon.load(other, tmp_path / "adapter")
    assert torch.equal(other(x), model(x))


def test_whatever_requires_a_gradient_is_in_the_file_with_the_buffers_beside_it(tmp_path):
    model = convnet()
    lincon.constrain(model, "hash", dof=20, where="3", offset=True)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    model.requires_grad_(False)
    for name in ("free", f"{norms[0]}.weight", f"{norms[0]}.bias", "6.bias"):
        model.get_parameter(name).requires_grad_(True)
    for name in norms[1:]:
        model.get_submodule(name).eval()
    model(images())
    moved(model)
    lincon.save(model, tmp_path / "adapter", only="trained")
    running = {
        f"{norms[0]}.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    learned = {"free", f"{norms[0]}.weight", f"{norms[0]}.bias", "6.bias"}
    assert load_file(tmp_path / "adapter").keys() == learned | running
    fresh = convnet()
    lincon.load(fresh, tmp_path / "adapter")
    assert torch.equal(fresh.eval()(images()), model.eval()(images()))


def test_statistics_of_a_frozen_norm_that_move_are_warned_of_and_not_mistaken(tmp_path):
    model = convnet()
    lincon.constrain(model, "hash", dof=20, where="3", offset=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "free")
    model(images())
    with pytest.warns(lincon.LinconWarning, match="in training mode, so that running statistics"):
        lincon.save(model, tmp_path / "adapter", only="trained")
    fresh = convnet()
    with pytest.raises(lincon.FileError, match=r"running_mean' differ|running_mean', "):
        lincon.load(fresh, tmp_path / "adapter")
    assert not lincon.constraints(fresh)


def test_a_plain_model_has_adapters_too(tmp_path):
    model = stack()
    model[:-1].requires_grad_(False)
    moved(model)
    lincon.save(model, tmp_path / "head", only="trained")
    assert all(name.startswith("2.") for name in load_file(tmp_path / "head"))
    fresh, x = stack(), torch.randn(4, 6)
    lincon.load(fresh, tmp_path / "head")
    assert torch.equal(fresh(x), model(x))


def test_tied_and_quantised_adapters(tmp_path):
    def tied():
        model = stack()
        model[2][0].weight = model[1][0].weight
        model[2][2].bias = model[1][2].bias
        return model

    model = adapted(tied())
    model[1][2].bias.requires_grad_(True)
    moved(model)
    lincon.quantize(model)
    lincon.save(model, tmp_path / "adapter", only="trained")
    fresh, x = tied(), torch.randn(4, 6)
    lincon.load(fresh, tmp_path / "adapter")
    assert torch.equal(fresh(x), model(x)) and fresh[2][2].bias is fresh[1][2].bias


# What is refused.

OTHERS = {
    "a bias": (lambda m: m[1][0].bias.data.add_(1e-3), r"'1\.0\.bias' differ or are new"),
    "another base": (lambda m: m[0].weight.data.mul_(2), "W₀ differs"),
    "another dtype": (lambda m: m.double(), "'0.bias'.* differ.*same dtype"),
    "a new tensor": (lambda m: m[1].register_buffer("more", torch.ones(2)), r"'1\.more' differ"),
    "a tensor less": (
        lambda m: m[1][2].register_parameter("bias", None),
        "lacks some of that one's",
    ),
    "meta": (lambda m: m[1][2].to_empty(device="meta"), r"'1\.2\.\w+' is on the meta device"),
    "a shape": (
        lambda m: m[1].__setitem__(2, nn.LayerNorm([1, 32])),
        r"'1\.2\.bias', '1\.2\.weight' differ",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_is_not_the_base_is_refused_by_name_and_left_as_it_was(tmp_path, name):
    change, match = OTHERS[name]
    lincon.save(adapted(stack()), tmp_path / "adapter", only="trained")
    model = stack()
    change(model)
    before = dict(model.state_dict())
    with pytest.raises(lincon.FileError, match=match):
        lincon.load(model, tmp_path / "adapter")
    after = model.state_dict()
    assert before.keys() == after.keys() and all(after[name] is not None for name in before)
    assert not lincon.constraints(model)


def test_only_trained_is_the_one_choice(tmp_path):
    with pytest.raises(lincon.LinconError, match="only='free'; give 'trained'"):
        lincon.save(stack(), tmp_path / "adapter", only="free")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda h: h["base"].update(tensors="*"), "base is damaged"),
        (lambda h: h["base"].update(sha256="0" * 64), "lacks some"),
        (lambda h: h.update(base=[]), "base is no dict"),
        (lambda h: h["base"].pop("sha256"), "no base.'sha256'"),
        (lambda h: h["constraints"][0]["groups"][0].update(drawn=3), "drawn is no dict"),
    ],
)
def test_a_base_that_is_none_is_refused(tmp_path, change, match):
    path = tmp_path / "adapter"
    lincon.save(adapted(stack()), path, only="trained")
    resealed(path, lambda header, tensors: change(header))
    with pytest.raises(lincon.FileError, match=match):
        lincon.load(stack(), path)


def test_a_small_header_that_inflates_to_a_large_one_takes_no_memory(tmp_path):
    bomb = b85encode(zlib.compress(b" " * (1 << 28), 9, -15)).decode()
    entry = json.dumps({"format": 3, "lincon": "0.1.0", "deflated": bomb})
    save_file({"free": torch.ones(3)}, tmp_path / "bomb", {"lincon": entry})
    with pytest.raises(lincon.FileError, match="damaged"):
        lincon.inspect(tmp_path / "bomb")
    for deflated in ("~~", 3, b85encode(b"x").decode(), ""):
        entry = json.dumps({"format": 3, "lincon": "0.1.0", "deflated": deflated})
        save_file({"free": torch.ones(3)}, tmp_path / "bomb", {"lincon": entry})
        with pytest.raises(lincon.FileError, match="damaged"):
            lincon.inspect(tmp_path / "bomb")


def test_a_report_says_that_a_file_holds_what_was_trained(tmp_path):
    lincon.save(adapted(stack()), tmp_path / "adapter", only="trained")
    contents = lincon.inspect(tmp_path / "adapter")
    assert contents.total == contents.dof == 100
    assert f"on the model of checksum {contents.header['base']['sha256'][:16]}" in str(contents)


# W₀ from the seed.


def z(seed, rows):
    """The quantiles of N(0, 1) that W₀ is made of, from SciPy's normal distribution."""
    from scipy.stats import norm

    random = bits(key(seed, 203), torch.arange(rows)).numpy() & 4095
    return np.round(norm.ppf((random + 0.5) / 4096) * 4096) / 4096


@pytest.mark.parametrize("scale", ["match", "isometric", None])
@pytest.mark.parametrize(("name", "options"), MADE)
def test_weights_are_a_drawn_w0_plus_g_w_bit_for_bit_wherever_they_go(
    tmp_path, name, options, scale
):
    model = Raw()
    scale_of_first = float(model.first.detach().double().square().mean().sqrt())  # few values
    constraint = lincon.constrain(
        model, name, dof=9, seed=5, offset="seed", scale=scale, where=["first", "gain"], **options
    )
    group = constraint.groups[0]
    start = torch.cat([weight.reshape(-1) for weight in constraint.weights().values()])
    by_hand = z(5, 24)[:20] * float(f"{scale_of_first:.3g}")
    np.testing.assert_array_equal(start[:20].detach(), by_hand.astype(np.float32))
    assert torch.equal(model.gain, torch.ones(4))  # a constant starts at itself
    moved(model)
    flat = torch.cat([weight.reshape(-1) for weight in constraint.weights().values()])
    dense = torch.from_numpy(group.map.operator() @ model.free.detach().double().numpy())
    torch.testing.assert_close(flat.double(), dense + start, rtol=1e-5, atol=1e-5)

    x, output = torch.randn(3, 5), None
    output = model(x)
    assert not any("origin" in key for key in model.state_dict())
    lincon.save(model, tmp_path / "m")
    other = Raw()
    torch.nn.init.uniform_(other.first)
    lincon.load(other, tmp_path / "m")
    for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same(x), output)
        lincon.constraints(same)[0].materialize = "layer"
        torch.testing.assert_close(same(x), output, rtol=1e-6, atol=1e-6)
    assert torch.equal(lincon.merge(other)(x), lincon.merge(model)(x))


@pytest.mark.parametrize("scope", ["model", "tensor", ["0", "1", "2"]])
def test_a_drawn_w0_has_each_tensors_own_scale_and_costs_nothing_in_the_file(tmp_path, scope):
    model, plain = stack(width=64), stack(width=64)
    constraint = lincon.constrain(model, "ring", dof=0.02, offset="seed", scope=scope, seed=2)
    for name, weight in constraint.weights().items():
        deviation = float(plain.get_parameter(name).detach().std())
        assert abs(float(weight.detach().std()) / deviation - 1) < 0.1
        assert not torch.equal(weight, plain.get_parameter(name))
    flat = [weight.detach().reshape(-1)[:300] for weight in constraint.weights().values()]
    assert float(torch.corrcoef(torch.stack(flat)).sub(torch.eye(3)).abs().max()) < 0.25
    size = lincon.save(model, tmp_path / "m")
    plain_size = lincon.save(same_without_offset(scope), tmp_path / "p")
    assert size <= plain_size + 150 * len(constraint.groups)
    summary = lincon.summary(model)
    assert summary.resident >= summary.rows * 4 and summary.file < summary.rows


def same_without_offset(scope):
    model = stack(width=64)
    lincon.constrain(model, "ring", dof=0.02, scope=scope, seed=2)
    return model


def test_w0_is_the_same_in_any_chunks_and_precision_and_leaves_torchs_state_alone():
    drawn = Drawn.like(7, [torch.randn(700), torch.ones(5), torch.randn(1000)], [0.3, 1.0, 0.01])
    state = torch.get_rng_state()
    whole = drawn.rows(0, 1705)
    for start, stop in ((0, 1), (699, 702), (650, 1400), (1704, 1705)):
        assert torch.equal(drawn.rows(start, stop), whole[start:stop])
    assert torch.equal(whole[700:705], torch.ones(5).double())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(drawn.rows_like(torch.empty(0, dtype=dtype)), whole.to(dtype))
    assert torch.equal(torch.get_rng_state(), state)
    other = Drawn.like(8, [torch.randn(700)], [0.3])
    assert abs(float(torch.corrcoef(torch.stack([whole[:700], other.rows(0, 700)]))[0, 1])) < 0.15


def test_a_model_with_a_drawn_w0_is_cast_and_compiled_and_a_state_dict_is_enough():
    model, x = moved(adapted(stack(), offset="seed", seed=4)), torch.randn(4, 6)
    double = copy.deepcopy(model).double()
    torch.testing.assert_close(double(x.double()), model(x).double(), rtol=1e-5, atol=1e-5)
    other = adapted(stack(), offset="seed", seed=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    for each in (model, copy.deepcopy(double)):  # the second has drawn nothing yet
        x = x.to(each.free.dtype)
        compiled = torch.compile(each, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), each(x), rtol=1e-5, atol=1e-6)
        compiled(x).square().sum().backward()
        gradient, each.free.grad = each.free.grad, None
        each(x).square().sum().backward()
        torch.testing.assert_close(gradient, each.free.grad, rtol=1e-4, atol=1e-5)


def test_what_is_done_to_a_model_with_w0_is_done_to_one_with_a_drawn_w0(tmp_path):
    x = torch.randn(4, 6)
    for after in (lincon.quantize, lambda m: lincon.prune(m, 0.5, level="free")):
        model = adapted(stack(), offset="seed")
        after(model)
        lincon.save(model, tmp_path / "m", only="trained")
        fresh = stack()
        lincon.load(fresh, tmp_path / "m")
        assert torch.equal(fresh(x), model(x))
    with pytest.raises(lincon.LinconError, match="has an offset"):
        lincon.prune(adapted(stack(), offset="seed"), 0.5, level="weights")
    model = stack()
    target = {name: p.detach().clone() for name, p in model.named_parameters()}
    constraint = lincon.constrain(model, "identity", offset="seed")
    assert constraint.project(target) < 1e-6
    for name, weight in constraint.weights().items():
        torch.testing.assert_close(weight, target[name], rtol=1e-5, atol=1e-6)


def test_what_has_no_scale_is_refused():
    with pytest.raises(lincon.TargetError, match=r"no values to match.*offset= than 'seed'"):
        lincon.constrain(nn.Linear(4, 4, device="meta"), "ring", dof=3, offset="seed", scale=None)
    broken = nn.Linear(4, 4)
    broken.weight.data[0, 0] = torch.nan
    with pytest.raises(lincon.TargetError, match="not finite"):
        lincon.constrain(broken, "ring", dof=3, offset="seed", scale=None)
    with pytest.raises(lincon.LinconError, match="offset='seed' starts at W = 0"):
        lincon.constrain(nn.Linear(4, 4), "ring", dof=3, offset="seed", init="project")
    with pytest.raises(
        lincon.LinconError, match=r"offset='random'; give one of False, True, 'seed'"
    ):
        lincon.constrain(nn.Linear(4, 4), "ring", dof=3, offset="random")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(seed=d["seed"] + 1), "draws another W₀"),
        (lambda d: d["tensors"][0].__setitem__(1, 9.0), "draws another W₀"),
        (lambda d: d["tensors"].pop(), "do not agree"),
        (lambda d: d["tensors"][0].__setitem__(0, float("nan")), "draws another W₀"),
        (lambda d: d["tensors"][0].append(1.0), "do not agree"),
        (lambda d: d.update(tensors=[]), "do not agree"),
        (lambda d: d.update(seed="1"), "seed is no int"),
    ],
)
def test_a_description_of_another_w0_is_refused(tmp_path, change, match):
    path = tmp_path / "m"
    lincon.save(adapted(stack(), offset="seed"), path)
    resealed(path, lambda h, _: change(h["constraints"][0]["groups"][0]["drawn"]))
    with pytest.raises(lincon.FileError, match=match):
        lincon.load(stack(), path)


@pytest.mark.parametrize("name", ["drawn", "adapter"])
def test_golden_files_of_format_3_load_as_they_were_saved(name):
    model = Raw()
    lincon.load(model, GOLDEN / f"{name}-0.safetensors")
    lincon.merge(model)
    expected = load_file(GOLDEN / f"weights.{name}-0.safetensors")
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_a_header_is_deflated_from_format_3_on_alone(tmp_path):
    for offset, number in ((False, 1), ("seed", 3)):
        lincon.save(adapted(stack(), offset=offset), tmp_path / "m")
        with safe_open(tmp_path / "m", "pt") as file:
            entry = file.metadata()["lincon"]
        assert (
            json.loads(entry)["format"] == number == lincon.inspect(tmp_path / "m").header["format"]
        )
        assert ("deflated" in json.loads(entry)) == (number == 3)
        assert unpack(tmp_path, pack(unpack(tmp_path, entry))) == unpack(tmp_path, entry)


class NamedTwice(nn.Module):
    """A Parameter and a buffer, each under two names."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gain = self.same_gain = nn.Parameter(torch.ones(3))
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("same_count", self.count)
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x * self.same_gain + self.same_count)


def test_a_parameter_and_a_buffer_of_two_names_in_one_module_are_trained_under_both(tmp_path):
    model, fresh = NamedTwice(), NamedTwice()
    lincon.constrain(model, "ring", dof=4, where="linear", offset=True)
    moved(model)
    model.count += 1
    lincon.save(model, tmp_path / "adapter", only="trained")
    lincon.load(fresh, tmp_path / "adapter")
    assert torch.equal(fresh(torch.ones(2, 3)), model(torch.ones(2, 3)))


def test_the_statistics_of_a_norm_whose_parameters_are_generated_are_in_the_file(tmp_path):
    model, fresh = convnet(), convnet()
    where = ["0.weight", "1.weight", "1.bias"]
    lincon.constrain(model, "ring", dof=9, where=where, offset=True)
    model(images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lincon.save(model, tmp_path / "adapter", only="trained")
    lincon.load(fresh, tmp_path / "adapter")
    assert torch.equal(fresh.eval()(images()), model.eval()(images()))


@pytest.mark.parametrize("only", [None, "trained"])
@pytest.mark.parametrize("view", [torch.conj, lambda tensor: tensor.conj().imag])
def test_a_buffer_that_is_a_conjugate_or_negative_view_is_stored_as_it_reads(tmp_path, only, view):
    def signal():
        model = stack()
        values = torch.complex(torch.arange(3.0), torch.arange(3.0) + 1)
        model[0].register_buffer("signal", view(values))
        return model

    model, fresh = adapted(signal()), signal()
    if only is None:
        fresh[0].signal = torch.zeros_like(fresh[0].signal).clone()
    lincon.save(model, tmp_path / "model", only=only)
    lincon.load(fresh, tmp_path / "model")
    assert torch.equal(fresh[0].signal, model[0].signal)
