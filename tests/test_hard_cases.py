"""Found by trying to break the library; each was a bug first."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import lincon
from lincon.counter import key
from lincon.generators import Dense, Ring
from lincon.generators.one_nonzero import OneNonzero
from tests.models import Raw, convnet, images
from tests.resealed import resealed


def pair():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))


def test_sums_that_cancel_do_not_make_a_fingerprint_depend_on_their_order(monkeypatch):
    original = Dense._write
    for seed in range(40):
        first = Dense(200, 100, seed).fingerprint()
        with monkeypatch.context() as patch:
            patch.setattr(
                Dense,
                "_write",
                lambda g, out, free, start: original(g, out, free, start) or out.add_(1e-12),
            )
            assert Dense(200, 100, seed).fingerprint() == first


def test_an_offset_file_is_refused_by_another_base_that_is_constrained_already(tmp_path):
    model, other = pair(), pair()
    nn.init.normal_(other[0].weight)
    for m in (model, other):
        lincon.constrain(m, "ring", dof=0.5, offset=True, scale=None)
    lincon.save(model, tmp_path / "m")
    with pytest.raises(lincon.FileError, match="W₀ differs"):
        lincon.load(other, tmp_path / "m")


def test_the_origin_is_not_a_parameter_that_can_be_unfrozen():
    model = pair()
    lincon.constrain(model, "ring", dof=0.5, offset=True)
    origin = model.origin.clone()
    model.requires_grad_(False).requires_grad_(True)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert torch.equal(model.origin, origin)
    assert sum(p.numel() for p in model.parameters()) == lincon.summary(model).total == 64 + 16


def test_a_module_replaced_after_it_was_constrained_is_named_when_saving(tmp_path):
    model = pair()
    lincon.constrain(model, "ring", dof=0.5)
    model[2] = nn.Linear(8, 3)
    with pytest.raises(lincon.TargetError, match=r"'2\.weight' is no longer .*merge\(model\)"):
        lincon.save(model, tmp_path / "m")
    x = torch.randn(2, 8)
    before, head = model(x).detach(), model[2]
    lincon.merge(model)
    assert torch.equal(model(x), before) and model[2] is head
    lincon.save(model, tmp_path / "m")


def test_a_part_without_its_free_vector_is_neither_saved_nor_merged(tmp_path):
    model = pair()
    lincon.constrain(model, "ring", dof=0.5)
    for act in (lambda: lincon.save(model[0], tmp_path / "m"), lambda: lincon.merge(model[0])):
        with pytest.raises(lincon.TargetError, match="not part of this"):
            act()


def test_an_owner_that_is_in_a_model_twice_is_saved_and_loaded(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = nn.Linear(8, 8)

        def forward(self, x):
            return self.a(self.b(x))

    model, fresh, x = Twice(), Twice(), torch.randn(2, 8)
    lincon.constrain(model.a, "ring", dof=0.5)
    lincon.save(model, tmp_path / "m")
    lincon.load(fresh, tmp_path / "m")
    assert torch.equal(fresh(x), model(x))


def test_an_unregistered_generator_is_refused_when_saving(tmp_path):
    class Mine(OneNonzero):
        name = "mine"

        def entries(self, rows):
            return rows % self.dof, None

    model = pair()
    lincon.constrain(model, Mine, dof=0.5)
    with pytest.raises(lincon.LinconError, match=r"Mine is not the registered.*register"):
        lincon.save(model, tmp_path / "m")


def test_groups_of_several_dtypes_keep_them(tmp_path):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).double())

    model, fresh = build(), build()
    lincon.constrain(model, "ring", dof=0.5, scope="tensor")
    lincon.save(model, tmp_path / "m")
    lincon.load(fresh, tmp_path / "m")
    assert {k: v.dtype for k, v in fresh.state_dict().items()} == {
        k: v.dtype for k, v in model.state_dict().items()
    }
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True)
    )


def test_devices_are_those_of_the_model_that_loads(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    lincon.constrain(model, "ring", dof=0.5)
    lincon.save(model, tmp_path / "m")
    spread = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    lincon.load(spread, tmp_path / "m")
    assert spread[1].weight.is_meta and not spread[0].weight.is_meta


class Migrating(nn.Module):
    """Rescales its buffer when it loads a state of an older version."""

    _version = 2

    def __init__(self, fail=False):
        super().__init__()
        self.w, self.fail = nn.Parameter(torch.randn(4, 4)), fail
        self.register_buffer("b", torch.ones(1))

    def _load_from_state_dict(self, state, prefix, metadata, *args):
        if self.fail:
            raise RuntimeError("mine")
        if metadata.get("version") is None:
            state[prefix + "b"] = state[prefix + "b"] * 10
        super()._load_from_state_dict(state, prefix, metadata, *args)


def test_versions_of_modules_survive_and_a_failing_one_leaves_the_model_as_it_was(tmp_path):
    model, fresh = Migrating(), Migrating()
    lincon.constrain(model, "ring", dof=0.5)
    lincon.save(model, tmp_path / "m")
    lincon.load(fresh, tmp_path / "m")
    assert fresh.b == 1
    failing = Migrating(fail=True)
    weight = failing.w
    with pytest.raises(RuntimeError, match="mine"):
        lincon.load(failing, tmp_path / "m")
    assert (
        failing.w is weight
        and list(failing.state_dict()) == ["w", "b"]
        and not lincon.constraints(failing)
    )


def test_two_constraints_of_one_owner_are_loaded_into_the_same_and_into_a_fresh_one(tmp_path):
    def two():
        model = pair()
        lincon.constrain(model, "ring", dof=0.5, where="0.*weight")
        lincon.constrain(model, "hash", dof=0.5, where="2.weight")
        return model

    model, x = two(), torch.randn(2, 8)
    with torch.no_grad():
        model.free.normal_()
    lincon.save(model, tmp_path / "m")
    for other in (two(), pair()):
        lincon.load(other, tmp_path / "m")
        assert torch.equal(other(x), model(x))


def test_what_cannot_be_stored_is_named(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"step": 1}

    for model, named in ((Extra(4, 4), "_extra_state"), (nn.Linear(4, 4, device="meta"), "weight")):
        with pytest.raises(lincon.LinconError, match=named):
            lincon.save(model, tmp_path / "m")
    views = nn.Linear(4, 4)
    views.register_buffer("all", torch.arange(6.0))
    views.register_buffer("part", views.all[2:4])
    lincon.save(views, tmp_path / "m")
    with pytest.raises(lincon.LinconError, match="is a folder"):
        lincon.save(views, tmp_path)


@pytest.mark.parametrize("name", ["keys", "items", "values"])
def test_names_that_torch_cannot_parametrize_are_refused_before_anything_is_done(name):
    model = nn.Module()
    setattr(model, name, nn.Parameter(torch.randn(4, 4)))
    with pytest.raises(lincon.TargetError, match=f"{name!r}: torch cannot"):
        lincon.constrain(model, "ring", dof=0.5)
    assert list(model.state_dict()) == [name]


def test_a_wrapper_that_delegates_attributes_survives_merge():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

        def forward(self, x):
            return self.inner(x)

    model, x = Wrapper(nn.Linear(4, 4)), torch.randn(2, 4)
    lincon.constrain(model, "ring", dof=0.5)
    expected = model(x)
    assert type(lincon.merge(model)) is Wrapper and torch.equal(model(x), expected)
    assert list(model.state_dict()) == ["inner.weight", "inner.bias"]


def test_constraining_a_deep_copy_leaves_the_original_alone():
    model, x = nn.Sequential(nn.GRU(3, 4)), torch.randn(5, 2, 3)
    lincon.constrain(model, "ring", dof=0.5, where="0.weight_ih*")
    expected = model(x)[0]
    twin = copy.deepcopy(model)
    lincon.constrain(twin, "hash", dof=0.5, where="0.weight_hh*")
    assert torch.equal(model(x)[0], expected)
    lincon.merge(twin)
    assert torch.equal(model(x)[0], expected)


def test_an_outer_constraint_never_takes_the_free_vector_of_an_inner_one():
    model = Raw()
    lincon.constrain(model.second, "ring", dof=0.5)
    with pytest.warns(lincon.LinconWarning, match="random from now on: gain"):
        constraint = lincon.constrain(model, "hash", dof=0.5, where=["*", "gain", "second.bias"])
    assert [e.name for e in constraint.ledger] == ["first", "gain", "second.bias"]
    model(torch.randn(2, 5)).sum().backward()
    with pytest.raises(lincon.TargetError, match="matches no parameter"):
        lincon.constrain(Raw(), "ring", dof=0.5, where="free")


def test_leave_parametrized_of_torch_and_a_pickled_weight_are_plain_tensors(tmp_path):
    model = pair()
    lincon.constrain(model, "ring", dof=0.5)
    torch.save(model[0].weight.detach(), tmp_path / "w.pt")
    assert torch.equal(torch.load(tmp_path / "w.pt", weights_only=True), model[0].weight.detach())
    assert isinstance(nn.Parameter(model[0].weight.detach().clone()), nn.Parameter)


def test_merge_keeps_what_is_frozen_frozen():
    model = pair()
    lincon.constrain(model, "ring", dof=0.5)
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in lincon.merge(model).parameters())


def test_a_padding_row_is_named():
    with pytest.warns(lincon.LinconWarning, match="padding row of weight"):
        lincon.constrain(nn.Embedding(9, 4, padding_idx=0), "ring", dof=0.5)


def test_tiny_and_outlying_tensors_do_not_set_the_scale():
    for seed in range(30):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 2), nn.Linear(2, 1))
        largest = max(float(p.abs().max()) for n, p in model.named_parameters() if "weight" in n)
        constraint = lincon.constrain(model, "ring", dof=0.2, seed=seed)
        assert (
            max(float(w.detach().abs().max()) for w in constraint.weights().values()) < 8 * largest
        )
    token = nn.Module()
    token.cls, token.body = nn.Parameter(torch.randn(1, 1, 64) * 1e-6), nn.Linear(64, 64)
    scales = {e.name: e.scale for e in lincon.constrain(token, "ring", dof=0.2).ledger}
    assert scales["body.weight"] == 1 and scales["cls"] < 1e-3


def test_isometric_scales_are_not_rounded_to_bfloat16():
    model = nn.Linear(64, 64)
    lincon.constrain(model, "hash", dof=0.3, scale="isometric")
    exact = model.double().weight.detach().clone()
    narrow = model.bfloat16().weight.detach().double()
    assert (
        (narrow - exact).abs() / exact.abs().clamp(min=1e-9)
    ).max() < 2**-7  # of W and of the result, one each


def test_export_of_a_constrained_model_is_refused_with_the_remedy():
    model = pair()
    lincon.constrain(model, "ring", dof=0.5)
    for strict in (False, True):
        with pytest.raises(Exception, match=r"lincon\.merge"):
            torch.export.export(model, (torch.randn(2, 8),), strict=strict)


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3)])
def test_integers_of_other_libraries_are_integers(seed):
    model = pair()
    assert lincon.constrain(model, "ring", dof=np.int64(8), seed=seed).dof == 8
    assert lincon.constrain(pair(), "ring", dof=np.float32(0.5), seed=3).dof == 64


def test_seeds_of_any_size_differ():
    seeds = [0, 1, -1, 2**64, 2**64 - 1, 2**128, 2**128 - 1, -(2**128), 2**64 + 1, 2**192]
    assert len({key(seed) for seed in seeds}) == len(seeds)
    for seed in (None, 1.7, "a"):
        with pytest.raises(lincon.LinconError, match="integer"):
            lincon.constrain(pair(), "ring", dof=0.5, seed=seed)


def test_a_generator_itself_may_be_given():
    ring = Ring(128, 9)
    assert lincon.constrain(pair(), ring).groups[0].generator is ring
    with pytest.raises(lincon.LinconError, match="128 rows"):
        lincon.constrain(pair(), Ring(5, 4))
    with pytest.raises(lincon.LinconError, match="NoneType"):
        lincon.constrain(pair(), lambda rows, dof, seed: None, dof=3)


def test_names_that_only_look_parametrized_and_complex_tensors_are_no_obstacle():
    model = nn.Module()
    for name in ("w_q", "w_k", "w_v", "w_g"):
        setattr(model, name, nn.Parameter(torch.randn(4, 4)))
    model.spectrum = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
    assert [e.name for e in lincon.constrain(model, "ring", dof=0.5).ledger] == [
        "w_q",
        "w_k",
        "w_v",
        "w_g",
    ]


def test_a_scope_that_names_nothing_is_refused():
    for scope in (["0", "2", "typo"], {"0": 5, "2": 5, "typo": 5}):
        with pytest.raises(lincon.TargetError, match="typo"):
            lincon.constrain(
                pair(), "ring", dof=0.5 if isinstance(scope, list) else None, scope=scope
            )


def test_a_compiled_model_is_refused_as_owner():
    with pytest.raises(lincon.TargetError, match="constrain it first"):
        lincon.constrain(torch.compile(pair()), "ring", dof=0.5)


def test_the_default_device_does_not_matter():
    expected = lincon.constrain(pair(), "ring", dof=0.5).weights()
    model = pair()
    with torch.device("meta"):
        constraint = lincon.constrain(model, "ring", dof=0.5)
    assert all(torch.equal(w, expected[name]) for name, w in constraint.weights().items())


def test_weights_that_are_not_finite_are_not_fitted():
    model = pair()
    constraint = lincon.constrain(model, "ring", dof=0.5)
    free = model.free.clone()
    with pytest.raises(lincon.TargetError, match=r"'0\.weight' hold a value that is not finite"):
        constraint.project(
            {"0.weight": torch.full((8, 8), float("nan")), "2.weight": torch.zeros(8, 8)}
        )
    assert torch.equal(model.free, free)


@pytest.mark.parametrize(
    "options", [{"generator": "ring", "dof": 0.5, "init": "project"}, {"generator": "identity"}]
)
def test_a_start_that_cannot_be_fitted_leaves_the_model_as_it_was(options):
    model = pair()
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    before = list(model.named_parameters())
    with pytest.raises(lincon.TargetError, match=r"'2\.weight' hold a value that is not finite"):
        lincon.constrain(model, **options)
    after = list(model.named_parameters())
    assert [(n, id(p)) for n, p in after] == [
        (n, id(p)) for n, p in before
    ] and not lincon.constraints(model)


def test_a_newer_file_of_another_structure_says_it_is_newer(tmp_path):
    model = convnet()
    lincon.constrain(model, "ring", dof=0.1)
    lincon.save(model, tmp_path / "m")
    resealed(tmp_path / "m", lambda h, t: (h.clear(), h.update(format=4, lincon="9.9")))
    with pytest.raises(lincon.FileError, match=r"format 4.*9\.9"):
        lincon.load(convnet(), tmp_path / "m")
    assert model(images()).shape == (4, 10)
