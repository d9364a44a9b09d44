"""Pruned, quantised and coded: the same numbers again, in the bytes that were promised, and refusals by name."""

import json
import math
import zlib
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

import lincon
from lincon.files.coding import BUDGET, MAX_RATIO, USUAL_RATIO, decode, drawn, encode
from lincon.generators import Mask, Part, Ring
from lincon.quantising import default_size, to_integers
from tests.models import Raw, convnet, images
from tests.resealed import resealed

KIB = 1024


def constrained(generator="ring", dof=0.3, **options):
    model = convnet()
    lincon.constrain(model, generator, dof=dof, seed=3, **options)
    return model.eval()


# Coding.


def entropy(mask):
    """Bytes that a mask of independent entries takes at least."""
    share = float(mask.double().mean())
    return (
        0
        if share in (0, 1)
        else -(share * math.log2(share) + (1 - share) * math.log2(1 - share)) * len(mask) / 8
    )


KINDS = {
    torch.bool: (0, 1),
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-300, 300),
}


@st.composite
def integers(draw):
    dtype = draw(st.sampled_from(list(KINDS)))
    low, high = sorted(draw(st.lists(st.integers(*KINDS[dtype]), min_size=2, max_size=2)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    count = draw(st.integers(1, 3000))
    values = torch.randint(low, high + 1, (count,), generator=generator)
    rare = torch.rand(count, generator=generator) < draw(st.sampled_from([0, 0.003, 0.1, 0.5, 1]))
    return values.where(rare, low).to(dtype)


@given(integers())
@settings(deadline=None, max_examples=200)
def test_coding_loses_nothing_and_is_never_longer(tensor):
    coded = encode(tensor)
    if coded is None:
        return
    payload, described = coded
    assert payload.dtype == torch.uint8 and len(payload) < tensor.nbytes
    again = decode(payload, json.loads(json.dumps(described)))
    assert again.dtype == tensor.dtype and torch.equal(again, tensor)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_mask_takes_about_its_entropy(share):
    mask = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < share
    payload, _ = encode(mask)
    assert len(payload) <= 1.04 * entropy(mask) + 200


def test_shapes_and_neighbouring_values_far_from_zero_are_kept():
    tensor = torch.randint(1000, 1016, (7, 5, 3), dtype=torch.int32)
    payload, described = encode(tensor)
    assert torch.equal(decode(payload, described), tensor) and len(payload) <= tensor.numel()


@pytest.mark.parametrize(
    "tensor", [torch.randn(50), torch.arange(1000), torch.zeros(0, dtype=torch.bool)]
)
def test_what_is_not_small_integers_is_left_alone(tensor):
    assert encode(tensor) is None


def test_huffman_is_near_the_entropy_of_what_is_quantised():
    codes, _ = to_integers(torch.randn(100_000, generator=torch.Generator().manual_seed(0)), 4, 64)
    shares = torch.bincount(codes.long() + 7).double() / len(codes)
    least = float(-(shares * shares.clamp(min=1e-12).log2()).sum()) * len(codes) / 8
    assert len(encode(codes)[0]) <= 1.03 * least


def damaged():
    mask = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.05
    payload, described = encode(mask)
    yield payload[:-3], described
    yield torch.cat([payload, payload]), described
    yield payload.flip(0), described
    yield payload, {**described, "shape": [1000]}
    yield payload, {**described, "shape": [2**62]}
    yield payload, {**described, "shape": [-4, -1000]}
    yield payload, {**described, "shape": None}
    yield payload, {**described, "way": "zip"}
    yield payload, {**described, "dtype": "float32"}
    yield payload, {**described, "low": 7}
    yield payload, {**described, "width": 9}
    yield payload, {}
    yield payload[:5], described
    bomb = zlib.compress(bytes(10_000_000), 9)[2:-4]
    yield (
        torch.frombuffer(bytearray(bomb), dtype=torch.uint8),
        {**described, "way": "huffman", "shape": [4000]},
    )
    yield torch.zeros(1, dtype=torch.uint8), {**described, "way": "bits", "shape": [MAX_RATIO + 1]}


@pytest.mark.parametrize("number", range(len(list(damaged()))))
def test_a_damaged_coding_is_refused(number):
    payload, described = list(damaged())[number]
    with pytest.raises(lincon.FileError, match="damaged"):
        decode(payload, described)


# Pruning.


def test_what_is_dropped_has_the_least_effect_on_the_weights():
    """By hand: the effect of an entry is the norm of what the weights lose when it is set to zero."""
    model = constrained("sparse", dof=40)
    (constraint,) = lincon.constraints(model)
    whole = torch.cat([w.flatten() for w in constraint.weights().values()]).detach()
    effects = []
    for entry in range(40):
        with torch.no_grad():
            kept = model.free[entry].clone()
            model.free[entry] = 0
            less = torch.cat([w.flatten() for w in constraint.weights().values()])
            model.free[entry] = kept
        effects.append(float((whole - less).norm()))
    mask = lincon.prune(model, 25)["free"]
    order = sorted(range(40), key=lambda entry: -effects[entry])
    assert set(mask.nonzero().flatten().tolist()) == set(order[:25])


@pytest.mark.parametrize("generator", ["ring", "hash", "dense", "kronecker", "identity"])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_pruning_is_setting_free_numbers_to_zero_for_good(generator, materialize):
    model = constrained(
        generator, dof=1.0 if generator == "identity" else 0.3, materialize=materialize
    )
    (constraint,) = lincon.constraints(model)
    whole = model.free.detach().clone()
    mask = lincon.prune(model, 0.4)["free"]
    after = constraint.weights()
    assert constraint.dof == len(model.free) == int(mask.sum()) == round(0.4 * len(whole))
    assert torch.equal(model.free, whole[mask])
    other = constrained(generator, dof=1.0 if generator == "identity" else 0.3)
    with torch.no_grad():
        other.free.copy_(whole * mask)
    for name, weight in lincon.constraints(other)[0].weights().items():
        torch.testing.assert_close(after[name], weight)
    model(images()).square().sum().backward()
    other(images()).square().sum().backward()
    torch.testing.assert_close(model.free.grad, other.free.grad[mask], rtol=1e-4, atol=1e-5)


def test_pruning_again_prunes_what_is_left():
    model = constrained()
    first = lincon.prune(model, 0.5)["free"]
    second = lincon.prune(model, 0.5)["free"]
    (constraint,) = lincon.constraints(model)
    generator = constraint.groups[0].generator
    assert isinstance(generator, Part) and isinstance(generator.inner, Ring)
    both = first.clone()
    both[first] = second
    assert torch.equal(generator.tables()["kept_columns"], both) and constraint.dof == int(
        both.sum()
    )


def test_all_constraints_are_pruned_together():
    model = constrained(scope="tensor")
    before = {name: len(free) for name, free in lincon.constraints(model)[0].free.items()}
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "free" in name and "0" in name).mul_(1e-6)
    with pytest.warns(lincon.LinconWarning, match="but one number"):
        masks = lincon.prune(model, 0.5)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert (
        sum(kept.values()) == round(0.5 * sum(before.values())) + 1
    )  # the scaled-down one keeps a number
    assert sorted(kept[n] / before[n] for n in kept)[0] < 0.1


def test_free_vectors_of_several_owners_go_by_their_full_names():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for layer in model:
        lincon.constrain(layer, "ring", dof=10)
    with pytest.warns(lincon.LinconWarning, match="but one number"):
        masks = lincon.prune(
            model, 7, scores={"0.free": torch.arange(1.0, 11), "1.free": torch.zeros(10)}
        )
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"0.free": 7, "1.free": 1}
    assert len(model[0].free) == 7 and len(model[1].free) == 1


def test_scores_of_ones_own_count():
    model = constrained(dof=20)
    mask = lincon.prune(model, 5, scores={"free": torch.arange(20.0)})["free"]
    assert mask.nonzero().flatten().tolist() == [15, 16, 17, 18, 19]


def test_weights_that_are_pruned_stay_zero_and_dof_fall_with_the_last_reader():
    model = constrained("hash", dof=0.8)
    (constraint,) = lincon.constraints(model)
    before, dof = constraint.weights(), constraint.dof
    largest = (
        torch.cat([w.detach().abs().flatten() for w in before.values()])
        .sort(descending=True)
        .values
    )
    mask = lincon.prune(model, 0.25, level="weights")["free"]
    after = constraint.weights()
    for name, weight in after.items():
        size, cut = before[name].abs(), largest[round(0.25 * constraint.rows) - 1]
        assert bool((weight == before[name])[size > cut].all())
        assert not weight[size < cut].any()
        assert bool(((weight == before[name]) | (weight == 0)).all())  # where two are as large
    read = sum(int((w != 0).sum()) for w in after.values())
    assert lincon.zeros(model) == (constraint.rows - read, constraint.rows)
    assert read == round(0.25 * constraint.rows) and constraint.dof == int(mask.sum()) < dof
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(images()).square().sum().backward()
    optimizer.step()
    assert sum(int((w != 0).sum()) for w in constraint.weights().values()) == read


@pytest.mark.parametrize("act", [lambda m: lincon.prune(m, 0.5), lambda m: lincon.quantize(m)])
def test_a_copy_is_pruned_and_quantised_without_the_original(act):
    model = constrained()
    copy = deepcopy(model)
    expected, (constraint,) = model(images()), lincon.constraints(model)
    act(copy)
    assert torch.equal(model(images()), expected) and constraint.dof == len(model.free)
    act(model)
    assert torch.equal(model(images()), copy(images()))


def test_an_optimizer_made_before_is_named():
    model = constrained()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(lincon.LinconWarning, match="SGD"):
        lincon.prune(model, 0.5)
    del optimizer


def poisoned(value):
    model = constrained()
    with torch.no_grad():
        model.free[3] = value
    return model


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: lincon.prune(convnet(), 0.5), "no constraint"),
        (lambda: lincon.quantize(convnet()), "no constraint"),
        (lambda: lincon.prune(constrained(), 0), "positive"),
        (lambda: lincon.prune(constrained(), 10**6), "only"),
        (lambda: lincon.prune(constrained(), 1.5), "above 1"),
        (lambda: lincon.prune(constrained(), 0.5, level="rows"), "'free', 'weights'"),
        (lambda: lincon.prune(poisoned(math.nan), 0.5), "'free' holds NaN"),
        (
            lambda: lincon.prune(poisoned(math.inf), 0.5, level="weights"),
            "'free' holds NaN or infinity",
        ),
        (lambda: lincon.quantize(poisoned(-math.inf)), "'free' holds NaN or infinity"),
        (
            lambda: lincon.prune(constrained(), 0.5, scores={"free": torch.ones(3)}),
            "Scores of 'free'",
        ),
        (lambda: lincon.prune(constrained(offset=True), 0.5, level="weights"), "offset"),
        (lambda: lincon.prune(constrained(scale="isometric"), 0.5, level="weights"), "isometric"),
        (lambda: lincon.quantize(constrained(), 9), "2 to 8"),
        (lambda: lincon.quantize(constrained(), True), "2 to 8"),
        (lambda: lincon.quantize(constrained(), 8, 0), "size=0"),
        (lambda: lincon.quantize(lincon.quantize(constrained())[0].owner), "quantised already"),
        (lambda: lincon.prune(lincon.quantize(constrained())[0].owner, 0.5), "quantised already"),
        (lambda: Part(3, 2), "lincon.prune"),
        (lambda: Mask(3, 2), "lincon.prune"),
        (
            lambda: Part(9, 3, inner=Ring(9, 4), kept_columns=torch.ones(4, dtype=torch.bool)),
            "3 true",
        ),
    ],
)
def test_bad_input_is_refused_by_name(act, says):
    with pytest.raises(lincon.LinconError, match=says):
        act()


def test_a_refusal_changes_nothing():
    model = poisoned(math.nan)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for act in (lambda: lincon.prune(model, 0.5), lambda: lincon.quantize(model)):
        with pytest.raises(lincon.LinconError):
            act()
    now = model.state_dict()
    assert state.keys() == now.keys() and all(
        torch.equal(now[k], v) or "free" in k for k, v in state.items()
    )


# Quantisation.

VALUES = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 3.4028234663852886e38, 1.0]),
)


@given(st.lists(VALUES, min_size=1, max_size=90), st.integers(2, 8), st.integers(1, 100))
@settings(deadline=None, max_examples=300)
def test_integers_times_steps_are_within_half_a_step(values, bits, size):
    free = torch.tensor(values)
    codes, steps = to_integers(free, bits, size)
    most = 2 ** (bits - 1) - 1
    assert (
        codes.dtype == torch.int8
        and codes.abs().max() <= most
        and len(steps) == -(-len(free) // size)
    )
    made = codes.float() * steps.repeat_interleave(size)[: len(free)]
    assert made.isfinite().all()
    error = (made.double() - free.double()).abs()
    step = steps.double().repeat_interleave(size)[: len(free)]
    smallest = 2.0**-149  # steps below are rounded down to a multiple of it
    assert (error <= 0.5 * step * (1 + 1e-5) + most * smallest).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_weights_are_generated_from_the_integers(bits, materialize):
    model = constrained(materialize=materialize)
    free = model.free.detach().clone()
    (constraint,) = lincon.quantize(model, bits, size=32)
    codes, steps = to_integers(free, bits, 32)
    assert (
        model.free.dtype == torch.int8
        and not model.free.requires_grad
        and torch.equal(model.free, codes)
    )
    assert torch.equal(model.free_steps, steps)
    other = constrained()
    with torch.no_grad():
        other.free.copy_(codes * steps.repeat_interleave(32)[: len(codes)])
    assert torch.equal(model(images()), other(images()))
    assert list(model.state_dict()).count("free") == 1 and constraint.dof == len(codes)
    model.train()(images()).sum().backward()  # what is not generated still trains
    assert model.get_parameter("1.weight").grad is not None


def test_a_quantised_model_is_small_in_memory_and_takes_no_numbers():
    model = constrained()
    before = lincon.summary(model).resident
    dof = len(model.free)
    state = model.state_dict()
    (constraint,) = lincon.quantize(model)
    assert lincon.summary(model).resident == before - 4 * dof + dof + 4 * len(model.free_steps)
    with pytest.raises(lincon.TargetError, match="quantised"):
        constraint.project(constraint.weights())
    with pytest.raises(lincon.TargetError, match="integers"):
        model.load_state_dict(state, strict=False)
    with pytest.raises(lincon.TargetError, match="numbers"):
        constrained().load_state_dict(model.state_dict(), strict=False)


def test_dtypes_of_a_model_change_steps_and_not_integers():
    model = constrained()
    lincon.quantize(model)
    model.double()
    assert model.free.dtype == torch.int8 and model.free_steps.dtype == torch.float64
    assert model(images().double()).dtype == torch.float64


def test_steps_are_few_by_default():
    assert [default_size(n) for n in (1, 64 * 8192, 64 * 8192 + 1, 11_160_576)] == [
        64,
        64,
        128,
        2048,
    ]
    assert all(-(-n // default_size(n)) <= 8192 for n in (1, 10**5, 10**6, 10**7, 12_345_678))


# Files.


def forms():
    """Models in every form, by name."""
    yield "pruned", lambda m: lincon.prune(m, 0.3)
    yield "weights", lambda m: lincon.prune(m, 0.3, level="weights")
    yield "int8", lambda m: lincon.quantize(m, 8)
    yield "int4", lambda m: lincon.quantize(m, 4, size=32)
    yield "int3", lambda m: lincon.quantize(m, 3, size=7)
    yield "pruned-int4", lambda m: (lincon.prune(m, 0.3), lincon.quantize(m, 4))
    yield "weights-int8", lambda m: (lincon.prune(m, 0.3, level="weights"), lincon.quantize(m, 8))


@pytest.mark.parametrize("form", dict(forms()))
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("code", [True, False])
def test_a_file_gives_the_same_outputs_bit_for_bit(form, scope, code, tmp_path):
    model = constrained(scope=scope)
    dict(forms())[form](model)
    size = lincon.save(model, tmp_path / "m.safetensors", code=code)
    fresh = convnet().eval()
    lincon.load(fresh, tmp_path / "m.safetensors")
    assert torch.equal(fresh(images()), model(images()))
    assert fresh.state_dict().keys() == model.state_dict().keys()
    lincon.load(model, tmp_path / "m.safetensors")  # into one of the same form
    assert lincon.save(fresh, tmp_path / "again.safetensors", code=code) == size
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "m.safetensors"
    ).read_bytes()
    assert lincon.inspect(tmp_path / "m.safetensors").dof == lincon.summary(model).dof
    lincon.merge(fresh)
    assert torch.equal(fresh(images()), model(images()))


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(500, 400), nn.Linear(400, 300))


@given(
    keep=st.floats(0.01, 1.0),
    bits=st.integers(2, 8),
    seed=st.integers(0, 5),
    kind=st.sampled_from(["normal", "uniform", "constant", "zero"]),
)
@settings(deadline=None, max_examples=15)
def test_a_file_takes_no_more_than_its_numbers(keep, bits, seed, kind, tmp_path_factory):
    """The issue's bound: dof * p * b / 8 bytes, the mask, what is unconstrained, and 64 KiB."""
    path = tmp_path_factory.mktemp("bound") / "m.safetensors"
    torch.manual_seed(seed)
    model = Large()
    lincon.constrain(model, "ring", dof=0.5, seed=seed)
    with torch.no_grad():
        values = {"normal": torch.randn_like, "uniform": torch.rand_like, "zero": torch.zeros_like}
        model.free.copy_(values.get(kind, torch.ones_like)(model.free))
    rest = sum(4 * p.numel() for name, p in model.named_parameters() if name != "free")
    mask = lincon.prune(model, keep)["free"]
    lincon.quantize(model, bits)
    size = lincon.save(model, path)
    assert size <= int(mask.sum()) * bits / 8 + 1.04 * entropy(mask) + rest + 64 * KIB
    fresh = Large()
    lincon.load(fresh, path)
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True)
    )


def test_a_codebook_is_coded_too_and_its_zeros_cost_little(tmp_path):
    """Deep Compression's last steps: clusters of what pruning left, entropy-coded, the same weights bit for bit."""
    torch.manual_seed(0)
    model = Large()
    for layer in model.layers:
        torch_prune.l1_unstructured(layer, "weight", 0.9)
        torch_prune.remove(layer, "weight")
    lincon.constrain(model, "codebook", dof=31, scope="tensor", scale=None, init="project")
    coded = lincon.save(model, tmp_path / "m.safetensors")
    plain = lincon.save(model, tmp_path / "plain.safetensors", code=False)
    assert coded < 0.3 * plain
    fresh = Large()
    lincon.load(fresh, tmp_path / "m.safetensors")
    for mine, theirs in zip(fresh.layers, model.layers, strict=True):
        assert (
            torch.equal(mine.weight, theirs.weight)
            and int((mine.weight == 0).sum()) >= 0.89 * mine.weight.numel()
        )


def test_a_plain_file_is_still_of_the_first_format(tmp_path):
    lincon.save(constrained(), tmp_path / "m.safetensors")
    assert lincon.inspect(tmp_path / "m.safetensors").header["format"] == 1
    model = constrained()
    lincon.quantize(model)
    lincon.save(model, tmp_path / "q.safetensors")
    assert lincon.inspect(tmp_path / "q.safetensors").header["format"] == 2


def test_coded_tensors_of_a_file_have_one_allowance_together():
    """Many of them, each as far beyond the usual as one may be, would ask for any amount of memory."""
    values = torch.zeros(1 << 25, dtype=torch.bool)
    values[::250] = True  # alike gaps, a bit each
    coded, described = encode(values)
    beyond = drawn(values.nbytes, coded.nbytes)
    assert BUDGET > beyond > 1 << 24 and values.nbytes <= MAX_RATIO * coded.nbytes
    assert torch.equal(decode(coded, described, budget=beyond), values)
    with pytest.raises(lincon.FileError, match="values of 1 bits from"):
        decode(coded, described, budget=beyond - 1)
    again = encode(values, budget=beyond - 1)
    assert (
        again is not None and drawn(values.nbytes, again[0].nbytes) < beyond
    )  # in another way, a longer one
    assert values.nbytes <= USUAL_RATIO * again[0].nbytes and torch.equal(
        decode(*again, budget=0), values
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda h, t: h["constraints"][0]["groups"][0].pop("steps"),
        lambda h, t: h["constraints"][0]["groups"][0]["steps"].update(size=0),
        lambda h, t: h["constraints"][0]["groups"][0]["steps"].update(size=32),
        lambda h, t: h["constraints"][0]["groups"][0]["steps"].update(name="free"),
        lambda h, t: h["constraints"][0]["groups"][0].update(steps=[1]),
        lambda h, t: t.pop("free_steps"),
        lambda h, t: h["coded"]["free"].update(shape=[10**12]),
        lambda h, t: h["coded"].update(nothing=h["coded"]["free"]),
        lambda h, t: h.update(coded=[1, 2]),
        lambda h, t: t.update(
            {"lincon.tables.free.kept_columns": torch.zeros(9, dtype=torch.uint8)}
        ),
        lambda h, t: h["constraints"][0]["groups"][0]["generator"]["options"].update(inner={}),
        lambda h, t: h["constraints"][0]["groups"][0]["generator"]["options"]["inner"].update(
            dof=3
        ),
    ],
)
def test_a_forged_file_is_refused_and_changes_nothing(change, tmp_path):
    model = constrained()
    lincon.prune(model, 0.5)
    lincon.quantize(model, 4)
    path = tmp_path / "m.safetensors"
    lincon.save(model, path)
    resealed(path, change)
    fresh = convnet()
    keys = list(fresh.state_dict())
    with pytest.raises(lincon.FileError, match=r"m\.safetensors"):
        lincon.load(fresh, path)
    assert list(fresh.state_dict()) == keys


def test_raw_parameters_and_constraints_of_several_types(tmp_path):
    model = Raw()
    lincon.constrain(model, "dense", dof=9, seed=1)
    lincon.prune(model, 5)
    lincon.quantize(model, 8)
    lincon.save(model, tmp_path / "m.safetensors")
    fresh = Raw()
    lincon.load(fresh, tmp_path / "m.safetensors")
    x = torch.randn(2, 5)
    assert torch.equal(fresh(x), model(x))


# What an independent review broke.


def test_a_dense_checkpoint_does_not_become_integers():
    model = constrained()
    lincon.quantize(model)
    expected = model(images())
    for strict in (True, False):
        with pytest.raises(lincon.TargetError, match="quantised"):
            model.load_state_dict(convnet().state_dict(), strict=strict)
    assert torch.equal(model(images()), expected)


def test_weights_are_pruned_of_those_that_are_left():
    model = constrained("hash", dof=0.9)
    rows = lincon.constraints(model)[0].rows
    left = []
    for _ in range(3):
        lincon.prune(model, 0.5, level="weights")
        left.append(rows - lincon.zeros(model)[0])
    assert left == [
        round(rows / 2),
        round(round(rows / 2) / 2),
        round(round(round(rows / 2) / 2) / 2),
    ]
    with pytest.raises(lincon.DofError, match="only"):
        lincon.prune(model, left[-1] + 1, level="weights")


@pytest.mark.parametrize("level", ["free", "weights"])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_a_loss_made_before_pruning_has_its_own_gradient(materialize, level):
    model = convnet()
    lincon.constrain(model, "ring", dof=0.3, materialize=materialize)
    before = model.free
    model(images()).square().sum().backward()
    expected, before.grad = before.grad, None
    loss = model(images()).square().sum()
    lincon.prune(model, 0.5, level=level)
    loss.backward()
    assert (
        torch.equal(before.grad, expected) and model.free is not before and model.free.grad is None
    )


@pytest.mark.parametrize(
    "levels", [["weights"], ["free"], ["weights", "free"], ["free", "weights"]]
)
def test_pruning_over_and_over_nests_nothing(levels, tmp_path):
    model = constrained("identity", dof=None)
    for number in range(10):
        lincon.prune(model, 0.85, level=levels[number % len(levels)])
    (constraint,) = lincon.constraints(model)
    depth, generator = 0, constraint.groups[0].generator
    while hasattr(generator, "inner"):
        depth, generator = depth + 1, generator.inner
    assert depth <= 2
    lincon.save(model, tmp_path / "m.safetensors")
    fresh = convnet().eval()
    lincon.load(fresh, tmp_path / "m.safetensors")
    assert torch.equal(fresh(images()), model(images()))


def test_a_generator_that_no_file_can_name_is_refused_when_pruned_too(tmp_path):
    class Mine(lincon.Generator):
        name = "mine"

        def _write(self, out, free, start):
            out[:] = free[torch.arange(start, start + len(out)) % self.dof]

        def _accumulate(self, out, grad, start):
            out.index_add_(0, torch.arange(start, start + len(grad)) % self.dof, grad.to(out.dtype))

    model = convnet()
    lincon.constrain(model, Mine, dof=0.5)
    lincon.prune(model, 0.5)
    with pytest.raises(lincon.LinconError, match="mine"):
        lincon.save(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_one_step_may_be_shared_by_all_and_costs_no_more():
    model = constrained()
    (constraint,) = lincon.quantize(model, 8, size=1 << 40)
    assert len(model.free_steps) == 1 and constraint.groups[0].size == constraint.dof
    assert model(images()).isfinite().all()


def test_scores_of_nothing_are_refused():
    for level, name in (("free", "fre"), ("free", "0.weight"), ("weights", "free")):
        with pytest.raises(lincon.TargetError, match=name):
            lincon.prune(constrained(), 0.5, level=level, scores={name: torch.ones(3)})


def test_what_is_left_of_an_emptied_group_is_its_most_important():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for layer in model:
        lincon.constrain(layer, "ring", dof=10)
    scores = {
        "0.free": torch.arange(1.0, 11),
        "1.free": torch.full((10,), 0.5).index_fill(0, torch.tensor(6), 0.9),
    }
    with pytest.warns(lincon.LinconWarning, match="but one number"):
        assert lincon.prune(model, 10, scores=scores)["1.free"].nonzero().item() == 6


def test_a_merged_quantised_model_is_an_ordinary_one():
    model = constrained()
    lincon.quantize(model)
    lincon.merge(model)
    assert all(p.requires_grad for p in model.parameters())


def test_a_few_bytes_ask_for_little_memory():
    """Half a million values a byte were asked for: refused before anything is made."""
    mask = torch.zeros(1 << 20, dtype=torch.bool)
    mask[77] = True
    payload, described = encode(mask)
    assert torch.equal(decode(payload, described), mask)
    padded = torch.cat([payload, torch.zeros(1_000_000, dtype=torch.uint8)])
    with pytest.raises(lincon.FileError, match="damaged"):
        decode(padded, {**described, "shape": [2_000_000_000]})


@pytest.mark.parametrize(
    "change",
    [
        lambda h, t: t.update(
            {"lincon.tables.free.kept_columns": torch.zeros(24, dtype=torch.uint8)}
        ),
        lambda h, t: h["constraints"][0]["groups"][0]["generator"]["options"].update(
            kept_columns=[1]
        ),
        lambda h, t: h.update(aliases={"zz": "qq"}),
        lambda h, t: h.update(aliases=[1]),
        lambda h, t: h["constraints"][0]["groups"][0].update(origin="zz"),
        lambda h, t: h["constraints"][0]["groups"][0]["generator"].update(dof=10**13),
        lambda h, t: h["constraints"][0]["groups"][0]["steps"].update(size=1 << 40),
        lambda h, t: (
            h["constraints"][0]["groups"][0]["steps"].update(name="a.b"),
            t.update({"a.b": t.pop("free_steps")}),
        ),
        lambda h, t: (
            h["constraints"][0]["groups"][0]["steps"].update(name="forward"),
            t.update({"forward": t.pop("free_steps")}),
        ),
    ],
)
def test_forged_names_and_numbers_are_refused_and_change_nothing(change, tmp_path):
    test_a_forged_file_is_refused_and_changes_nothing(change, tmp_path)


def test_a_header_that_is_nothing_but_brackets_is_refused(tmp_path):
    save_file({"free": torch.ones(3)}, tmp_path / "m.safetensors", {"lincon": "[" * 200_000})
    with pytest.raises(lincon.FileError, match="damaged"):
        lincon.inspect(tmp_path / "m.safetensors")


def test_what_shall_be_kept_is_called_so():
    for keep in (0, 1.5, "a", 10**9):
        with pytest.raises(lincon.DofError, match=r"^keep="):
            lincon.prune(constrained(), keep)
