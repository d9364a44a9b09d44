"""What a state_dict says of G: loaded into a model of other initial weights it gives equal outputs, or is refused."""

import copy
import io
import tempfile
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.func import functional_call

import lincon
from lincon.files.entry import HEAD
from lincon.generators import available

from .cases import GIVEN, OPTIONS, make
from .ranks import on_ranks, outcome

SCALES = "match", "isometric", None
SCOPES = "model", "tensor", ["0", "2"]
INPUT = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def built(torch_seed, name="ring", **options):
    """A small model of initial weights of its own, constrained."""
    torch.manual_seed(torch_seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).eval()
    options = {"dof": 0.5, "seed": 3, **options}
    if name in GIVEN:
        del options["dof"]
        scope = options.pop("scope", "model")
        options["scope"] = scope if isinstance(scope, str) else ["0"]
        recipe = lambda rows, dof, seed: make(name, rows, 9, 5, OPTIONS[name][0])  # noqa: E731
        lincon.constrain(model, recipe, where="0.weight", **options)
        return model
    if name == "identity":
        options["dof"] = 1.0
    lincon.constrain(model, name, **options)
    return model


def by_load_state_dict(model, other):
    other.load_state_dict(model.state_dict())


def not_strictly(model, other):
    other.load_state_dict(model.state_dict(), strict=False)


def by_torch_save(model, other):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))


def by_safetensors(model, other):
    with tempfile.TemporaryDirectory() as folder:
        save_file(model.state_dict(), f"{folder}/model.safetensors")
        other.load_state_dict(load_file(f"{folder}/model.safetensors"))


def by_safetensors_model(model, other):
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, f"{folder}/model.safetensors")
        load_model(other, f"{folder}/model.safetensors")


def by_file_of_lincon(model, other):
    with tempfile.TemporaryDirectory() as folder:
        lincon.save(model, f"{folder}/model.safetensors")
        state = load_file(f"{folder}/model.safetensors")
        state = {key: value for key, value in state.items() if not key.startswith("lincon.")}
        other.load_state_dict(state, strict=False)


def tensor_by_tensor(model, other):
    """As tools do that know parameters and buffers alone."""
    names = other.state_dict().keys()
    for name, value in model.state_dict().items():
        path, _, attribute = name.rpartition(".")
        module = other.get_submodule(path)
        assert name in names and getattr(module, attribute).shape == value.shape
        value = value.clone()
        setattr(module, attribute, value if attribute in module._buffers else nn.Parameter(value))


def in_place(model, other):
    for mine, value in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        mine.copy_(value)


WAYS = (
    by_load_state_dict,
    not_strictly,
    by_torch_save,
    by_safetensors,
    by_safetensors_model,
    by_file_of_lincon,
    tensor_by_tensor,
    in_place,
)


def check(way, model, other):
    """Equal outputs, or a refusal that leaves the other model as it was."""
    before = other(INPUT)
    expected = model(INPUT)
    try:
        way(model, other)
        result = other(INPUT)
    except lincon.LinconError:
        if way in (tensor_by_tensor, in_place):  # the tool has changed it before it is looked at
            return False
        assert torch.equal(other(INPUT), before)
        return False
    assert torch.equal(result, expected)
    assert torch.equal(model(INPUT), expected)
    return True


@pytest.mark.parametrize("name", available())
@settings(max_examples=12, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    scale=st.sampled_from(SCALES),
    scope=st.sampled_from(SCOPES),
    offset=st.sampled_from([False, True, "seed"]),
    init=st.sampled_from(("random", "project")),
    option=st.integers(0, 20),
    seeds=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_a_state_gives_the_same_outputs_in_a_model_of_other_initial_weights(
    name, way, scale, scope, offset, init, option, seeds
):
    options = {} if name in GIVEN else OPTIONS[name][option % len(OPTIONS[name])]
    options = {"scale": scale, "scope": scope, "offset": offset, "init": init, **options}
    try:
        model, other = (built(seed, name, **options) for seed in seeds)
    except lincon.LinconError:
        return  # what cannot be constrained so
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    loaded = check(way, model, other)
    if way is not by_file_of_lincon:
        assert loaded or name in ("codebook", "lego")  # which may learn G from the weights


OTHERS = {
    "seed": {"seed": 4},
    "options": {"sign": False},
    "dof": {"dof": 0.25},
    "rows": {"where": ["2.weight"], "dof": 28},
    "free_0": {"scope": ["0", "2"]},
    "origin": {"offset": True},
    "isometric": {"scale": "isometric"},
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("way", WAYS[:-2])
def test_another_g_is_refused_by_name_before_anything_changes(what, way):
    model, other = built(0, **OTHERS[what]), built(0)
    state = copy.deepcopy(other.state_dict())
    match = what if way is not by_file_of_lincon or what == "free_0" else "lincon.load"
    with pytest.raises(lincon.LinconError, match=match):
        way(model, other)
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_another_ledger_is_named():
    def sorted_otherwise(*names):
        torch.manual_seed(0)
        model = nn.Sequential()
        for name in names:
            model.add_module(name, nn.Linear(6, 6))
        lincon.constrain(model, "ring", dof=9)
        return model

    with pytest.raises(lincon.FileError, match=r'ledger.0.*is "a.weight" there and "b.weight"'):
        sorted_otherwise("b", "a").load_state_dict(sorted_otherwise("a", "b").state_dict())


def test_another_generator_is_named():
    with pytest.raises(lincon.FileError, match=r'generator.name is "hash" there and "ring" here'):
        built(0).load_state_dict(built(0, "hash").state_dict(), strict=False)


def test_nothing_changes_if_a_part_or_another_constraint_is_refused():
    def nested(seed_of_part):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4)))
        lincon.constrain(model[1], "ring", dof=9, where="1.weight", seed=seed_of_part)
        lincon.constrain(model, "ring", dof=9, where="0.weight")
        lincon.constrain(model, "ring", dof=9, where="1.0.weight", seed=seed_of_part)
        return model

    model, other = nested(1), nested(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(lincon.FileError, match=r"seed is"):
        other.load_state_dict(model.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    twin = nested(1)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(INPUT), model(INPUT))


def test_an_owner_that_is_in_the_model_twice_takes_its_state():
    def twice(seed):
        block = built(seed)
        return nn.ModuleList([block, block])

    model, other = twice(0), twice(1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other[0](INPUT), model[1](INPUT))


def without_entries(state):
    return {name: value for name, value in state.items() if "_spec" not in name}


def test_a_state_from_before_is_read_and_its_condition_is_said():
    model, other = built(0), built(0)
    with torch.no_grad():
        model.get_parameter("free").add_(1)
    with pytest.warns(lincon.LinconWarning, match="does not say of what G 'free' is"):
        other.load_state_dict(without_entries(model.state_dict()))
    assert torch.equal(other(INPUT), model(INPUT))


def test_parts_of_a_state_arrive_one_after_the_other():
    model, other = built(0), built(1)
    state = model.state_dict()
    entry = {name: state.pop(name) for name in list(state) if "_spec" in name}
    with pytest.warns(lincon.LinconWarning):
        other.load_state_dict(state)
    other.load_state_dict(entry, strict=False)
    assert torch.equal(other(INPUT), model(INPUT))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_an_entry_survives_other_types_and_averages(dtype):
    model, other = built(0), built(1)
    state = model.state_dict()
    entry = state["free_spec"].to(dtype)
    if dtype in (torch.float16, torch.float32):  # bfloat16 has no room for averages
        for decay in (0.5, 0.9, 0.99, 0.999, 0.9999):
            average = entry.clone()
            for _ in range(200):
                average = average * decay + entry * (1 - decay)
            entry = average
        entry = sum([entry] * 16) / 16
    other.load_state_dict({**state, "free_spec": entry})
    assert torch.equal(other(INPUT), model(INPUT))


def test_an_average_over_different_g_is_refused():
    one, two = built(0).state_dict(), built(1).state_dict()
    average = {name: (one[name] + two[name]) / 2 for name in one}
    with pytest.raises(lincon.FileError, match="average over different G"):
        built(0).load_state_dict(average)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry[:-3],
        lambda entry: entry[:20],
        lambda entry: entry.reshape(1, -1),
        lambda entry: torch.cat([entry, entry]),
        lambda entry: torch.full_like(entry, float("nan")),
        lambda entry: -entry,
        lambda entry: entry * 3,
        lambda entry: entry.to(torch.complex64),
        lambda entry: torch.cat([entry[:HEAD], torch.full((9000,), float(ord("[")))]),
        lambda entry: entry.new_zeros(0),
    ],
)
def test_a_damaged_entry_is_refused(damage):
    model = built(0)
    state = model.state_dict()
    with pytest.raises(lincon.FileError, match="damaged"):
        built(1).load_state_dict({**state, "free_spec": damage(state["free_spec"])})


def test_generated_names_are_in_no_state_where_a_module_writes_its_own():
    class Own(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            destination[f"{prefix}weight"] = self.weight
            destination[f"{prefix}bias"] = self.bias

    def model():
        torch.manual_seed(0)
        model = nn.Sequential(Own(6, 6), nn.Linear(6, 4))
        lincon.constrain(model, "ring", dof=0.5)
        return model

    one, other = model(), model()
    assert list(one.state_dict()) == ["0.bias", "1.bias", "free", "free_spec"] or sorted(
        one.state_dict()
    ) == ["0.bias", "1.bias", "free", "free_spec"]
    other.load_state_dict(one.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        lincon.save(one, f"{folder}/model.safetensors")
        plain = nn.Sequential(Own(6, 6), nn.Linear(6, 4))
        lincon.load(plain, f"{folder}/model.safetensors")
    assert torch.equal(plain(INPUT), one(INPUT))
    before = {**one.state_dict(), "0.weight": one[0].weight.detach()}
    other.load_state_dict(before)  # as such modules wrote it


@pytest.mark.parametrize("scope", SCOPES)
def test_bytes_have_a_bound(scope):
    """Two bytes a character: 400 a free vector, and 40, the names and the shape a tensor."""
    model = built(0, scope=scope)
    (constraint,) = lincon.constraints(model)
    state = model.state_dict()
    for group in constraint.groups:
        tensors = sum(40 + sum(map(len, e.names)) + 10 * len(e.shape) for e in group.ledger)
        assert state[f"{group.free}_spec"].nbytes <= 2 * (400 + len(group.free) + tensors)


def test_lincons_own_file_has_only_the_digest(tmp_path):
    model = built(0)
    lincon.save(model, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors")["free_spec"].shape == (HEAD,)
    assert "free_spec" not in lincon.inspect(tmp_path / "model.safetensors").tensors
    twin = built(0)
    twin.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with pytest.raises(lincon.FileError, match=r"read the file with lincon\.load"):
        built(1).load_state_dict(load_file(tmp_path / "model.safetensors"))


def test_a_tool_that_sets_an_entry_of_another_g_is_refused_at_the_next_use():
    model, other = built(0, seed=4), built(1)
    tensor_by_tensor(model, other)
    for use in (lambda: other(INPUT), lambda: other[0].weight, lambda: lincon.merge(other)):
        with pytest.raises(lincon.FileError, match="seed is 4 there and 3 here"):
            use()
    good = built(0)
    other.load_state_dict(good.state_dict())
    assert torch.equal(other(INPUT), good(INPUT))
    tensor_by_tensor(model, other)
    other.load_state_dict(lincon.merge(good).state_dict())  # dense weights put it right as well
    torch.testing.assert_close(other(INPUT), good(INPUT))


def test_no_buffer_and_no_parameter_remains_in_the_model():
    """Some tools refuse a module of parameters that has a buffer anywhere (opacus)."""
    model, other = built(0), built(1)
    tensor_by_tensor(model, other)
    other(INPUT)
    for each in (model, other):
        assert not list(each.buffers()) and len(list(each.parameters())) == 3
    lincon.merge(other)
    assert not [name for name in (*vars(other), *other._buffers) if "spec" in name]


def test_a_functional_call_changes_nothing_for_good():
    model, other = built(0), built(1)
    expected = other(INPUT)
    assert torch.equal(functional_call(other, other.state_dict(), INPUT), expected)
    with pytest.raises(lincon.FileError, match="functional_call"):
        functional_call(other, model.state_dict(), INPUT)
    assert torch.equal(other(INPUT), expected)


def test_stacked_states_of_different_g_are_refused():
    states = [built(0).state_dict(), built(1).state_dict()]
    base = built(0)

    def run(state):
        return functional_call(base, state, INPUT)

    stack = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    with pytest.raises(lincon.FileError, match="stack of free vectors"):
        torch.func.vmap(run)(stack)
    alike = {name: torch.stack([states[0][name]] * 2) for name in states[0]}
    torch.testing.assert_close(torch.func.vmap(run)(alike)[1], base(INPUT))


@pytest.mark.parametrize("way", [by_load_state_dict, tensor_by_tensor, in_place])
@pytest.mark.parametrize("before", [False, True])
def test_a_compiled_model_reads_the_multipliers_that_were_loaded(way, before):
    torch._dynamo.reset()
    model, other = built(0), built(1)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    if before:
        compiled(INPUT)
    way(model, other)
    if way is in_place:
        other(INPUT)  # which looks at what was written
    torch.testing.assert_close(compiled(INPUT), model(INPUT))


def test_copies_keep_what_was_loaded():
    model, other = built(0), built(1)
    tensor_by_tensor(model, other)
    twin = copy.deepcopy(other)  # what the tool has left included
    assert torch.equal(twin(INPUT), model(INPUT))
    other.load_state_dict(built(0).state_dict())
    buffer = io.BytesIO()
    torch.save(other, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(INPUT), other(INPUT))


def test_a_quantised_model_takes_its_state():
    model, other = built(0), built(1)
    lincon.quantize(model)
    with pytest.raises(lincon.LinconError):
        other.load_state_dict(model.state_dict())
    lincon.quantize(other)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(INPUT), model(INPUT))


def test_a_model_average_is_of_the_same_g():
    for use_buffers in (False, True):
        model = built(0)
        average = torch.optim.swa_utils.AveragedModel(
            model,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9),
            use_buffers=use_buffers,
        )
        for _ in range(3):
            average.update_parameters(model)
        other = built(1)
        other.load_state_dict(average.module.state_dict())
        torch.testing.assert_close(other(INPUT), model(INPUT))


DCP = [
    (name, scale, scope)
    for number, (name, scale, scope) in enumerate(product(available(), SCALES, SCOPES))
    if number % 4 == 0
]


def through_dcp(rank, world, folder):
    return {str(case): outcome(one_through_dcp, folder, *case) for case in DCP}


def one_through_dcp(folder, name, scale, scope):
    offset = name == "hash"
    model, other = (built(seed, name, scale=scale, scope=scope, offset=offset) for seed in (0, 1))
    place = Path(folder) / f"{name}-{scale}-{len(scope)}"
    dcp.save(get_model_state_dict(model), checkpoint_id=place)
    state = get_model_state_dict(other)
    dcp.load(state, checkpoint_id=place)
    set_model_state_dict(other, state)
    return torch.equal(other(INPUT), model(INPUT))


@pytest.mark.long
def test_a_distributed_checkpoint_of_two_ranks_gives_the_same_outputs(tmp_path):
    (tmp_path / "ranks").mkdir()
    results = on_ranks(2, through_dcp, tmp_path / "ranks", str(tmp_path))
    for rank in results:
        assert len(rank) == len(DCP)
        # A codebook is learned from the weights, so that its G is another one.
        refused = {case for case, done in rank.items() if "FileError" in str(done)}
        assert all("codebook" in case for case in refused)
        assert all(done is True for case, done in rank.items() if case not in refused), rank


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_names_of_a_wrapper_are_refused_and_the_prefix_is_named(front, strict):
    model, other = built(0, scope="tensor"), built(1, scope="tensor")
    state = {front + name: value for name, value in model.state_dict().items()}
    with pytest.raises(lincon.FileError, match=f"begin with '{front.split('.')[0]}.', as those"):
        other.load_state_dict(state, strict=strict)
    for part in front.split(".")[:-1]:
        nn.modules.utils.consume_prefix_in_state_dict_if_present(state, f"{part}.")
    other.load_state_dict(state)
    assert torch.equal(other(INPUT), model(INPUT))


@pytest.mark.parametrize("change", [lincon.prune, lincon.quantize])
def test_a_g_that_no_seed_can_rebuild_is_refused_with_a_remedy_that_works(change, tmp_path):
    model, other = built(0), built(1)
    change(model, **({"keep": 0.5} if change is lincon.prune else {}))
    with pytest.raises(lincon.LinconError, match=r"lincon\.load the file into a fresh"):
        other.load_state_dict(model.state_dict(), strict=False)
    fresh = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    lincon.save(model, tmp_path / "model")
    lincon.load(fresh, tmp_path / "model")
    assert torch.equal(fresh(INPUT), model(INPUT))


def nested_owners(seed):
    """A part that owns free vectors, in a model that owns others."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4)))
    lincon.constrain(model[1], "ring", dof=9)
    lincon.constrain(model, "ring", dof=9)
    return model


NUMBERS = {"1.free": torch.ones(9)}
WRONG_IN_A_PART = {
    "a value that is not finite": (None, lambda state: state["1.1.weight"].fill_(torch.nan)),
    "another shape": (None, lambda state: state.update({"1.1.weight": torch.ones(3, 3)})),
    "integers": (lambda model: lincon.quantize(model[1]), lambda state: None),
    "numbers without an entry": (
        lambda model: lincon.quantize(model[1]),
        lambda state: [state.pop(f"1.{n}.weight") for n in (0, 1)] + [state.update(NUMBERS)],
    ),
}


@pytest.mark.parametrize("name", WRONG_IN_A_PART)
def test_dense_weights_that_a_part_cannot_take_leave_the_whole_as_it_was(name):
    change, spoil = WRONG_IN_A_PART[name]
    state = lincon.merge(nested_owners(0)).state_dict()
    spoil(state)
    model = nested_owners(1)
    if change is not None:
        change(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(lincon.TargetError):
        model.load_state_dict(state)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
