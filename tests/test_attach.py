"""BEHAVIOURS 1-8: any module, unedited; nothing silently does nothing."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lincon
from lincon.generators.nullspace import symmetric, tied, zero_sum
from tests.models import Raw, Reads, Tied, convnet, images


def step(model, *inputs):
    """One SGD step on the sum of squares; the outputs before it."""
    out = model(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("free"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    optimizer.step()
    return out.detach()


MODULES = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), (torch.randn(2, 3, 9),)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, groups=1), (torch.randn(2, 3, 9, 9),)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (torch.randn(1, 2, 4, 4, 4),)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (torch.randn(2, 3, 5, 5),)),
    "linear": (lambda: nn.Linear(5, 4), (torch.randn(2, 5),)),
    "bilinear": (lambda: nn.Bilinear(5, 4, 3), (torch.randn(2, 5), torch.randn(2, 4))),
    "embedding": (lambda: nn.Embedding(10, 4), (torch.tensor([[1, 2, 3]]),)),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        (torch.randn(2, 5, 8),) * 3,
    ),
    "lstm": (lambda: nn.LSTM(4, 5, num_layers=2, bidirectional=True), (torch.randn(6, 2, 4),)),
    "gru": (lambda: nn.GRU(4, 5), (torch.randn(6, 2, 4),)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
        (torch.randn(2, 5, 8),),
    ),
    "raw": (Raw, (torch.randn(2, 5),)),
    "reads": (Reads, (torch.randn(2, 6),)),
    "tied": (Tied, (torch.tensor([[1, 2, 3]]),)),
    "sequential": (convnet, (images(),)),
}


@pytest.mark.parametrize("name", MODULES)
def test_works_on_any_module_without_editing_the_model(name):
    build, inputs = MODULES[name]
    model = build()
    cls, keys = type(model), list(model.state_dict())
    constraint = lincon.constrain(model, "ring", dof=0.5, seed=1)
    assert isinstance(model, cls)
    assert constraint.dof == round(0.5 * constraint.rows) == model.free.numel()
    before = step(model, *inputs)
    after = model(*inputs)
    after = after[0] if isinstance(after, tuple) else after
    assert not torch.equal(before, after), "a step changed nothing"
    lincon.merge(model)
    merged = model(*inputs)
    assert type(model) is cls and list(model.state_dict()) == keys
    assert torch.equal(merged[0] if isinstance(merged, tuple) else merged, after)


def test_gradients_are_those_of_the_dense_matrix():
    model = convnet()
    constraint = lincon.constrain(model, "ring", dof=0.2, scale=None)
    model(images()).square().sum().backward()
    reference = copy.deepcopy(model)
    lincon.merge(reference)
    reference(images()).square().sum().backward()
    grads = torch.cat([reference.get_parameter(e.name).grad.reshape(-1) for e in constraint.ledger])
    expected = constraint.groups[0].generator.dense().T @ grads.double()
    torch.testing.assert_close(model.free.grad.double(), expected, rtol=1e-4, atol=1e-4)


def test_rnn_weights_really_train_and_are_never_stale():
    lstm, x = nn.LSTM(4, 5), torch.randn(6, 2, 4)
    lincon.constrain(lstm, "ring", dof=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = lstm(x)[0]
        with torch.no_grad():
            lstm.free.mul_(2)
        assert not torch.equal(first, lstm(x)[0])
        copy.deepcopy(lstm)


def test_attention_fast_path_equals_slow_path():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    lincon.constrain(model, "ring", dof=0.3)
    x = torch.randn(2, 5, 16)
    slow = model.eval()(x)
    with torch.no_grad():
        fast = model(x)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    lincon.merge(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), fast, rtol=1e-5, atol=1e-5)


def test_tied_weights_stay_tied():
    model = Tied()
    constraint = lincon.constrain(model, "ring", dof=0.5)
    entry = next(e for e in constraint.ledger if "embed.weight" in e.names)
    assert set(entry.names) == {"embed.weight", "head.weight"}
    assert constraint.rows == 20 * 6 + 36
    assert torch.equal(torch.as_tensor(model.embed.weight), torch.as_tensor(model.head.weight))
    lincon.merge(model)
    assert model.embed.weight is model.head.weight


def test_naming_one_of_two_tied_weights_covers_both():
    model = Tied()
    lincon.constrain(model, "ring", dof=0.5, where="head.weight")
    assert "embed.weight" not in model.state_dict() and "head.weight" not in model.state_dict()


def test_a_module_used_twice_is_one_tensor():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    constraint = lincon.constrain(model, "ring", dof=0.5)
    assert constraint.rows == 16
    model(torch.randn(2, 4)).sum().backward()
    lincon.merge(model)
    assert model[0] is model[2] and isinstance(shared.weight, nn.Parameter)


def test_two_targets_on_one_module_and_a_parameter_on_the_root():
    model = Raw()
    constraint = lincon.constrain(model, "ring", dof=0.5)
    assert [e.name for e in constraint.ledger] == ["first", "second.weight"]
    gru = nn.GRU(4, 5)
    lincon.constrain(gru, "ring", dof=0.5, where=["weight_ih_l0"])
    lincon.constrain(gru, "hash", dof=0.5, where=["weight_hh_l0"])
    step(gru, torch.randn(3, 2, 4))
    keys = list(nn.GRU(4, 5).state_dict())
    lincon.merge(gru)
    assert list(gru.state_dict()) == keys


def test_roots_that_iterate_over_their_children_keep_working():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    lincon.constrain(model, "ring", dof=0.5)
    assert len(model) == 3 and model(torch.randn(2, 4)).shape == (2, 2)
    blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    constraint = lincon.constrain(blocks, "ring", dof=0.5)
    assert len(list(blocks)) == 3
    blocks[1](
        torch.randn(2, 4)
    ).sum().backward()  # the root's forward never runs: weights are made on demand
    assert blocks.free.grad is not None and constraint.rows == 48


def test_writing_to_a_generated_weight_is_refused():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.5)
    before = model[0].weight.clone()
    for write in (
        lambda: nn.init.zeros_(model[0].weight),
        lambda: model[0].weight.data.zero_(),
        lambda: model[0].weight.detach().zero_(),
        lambda: model[0].weight.data.__setitem__(0, 1.0),
        lambda: setattr(model[0], "weight", torch.zeros(8, 1, 3, 3)),
        lambda: setattr(model[0].weight, "data", torch.zeros(8, 1, 3, 3)),
        lambda: model[0].weight.__iadd__(1),
        lambda: model[0].weight[0].zero_(),
        lambda: model[0].weight.data[0, 0].fill_(1),
        lambda: model[0].weight.view(-1).t().zero_(),
        lambda: model[0].weight.unbind()[1].zero_(),
        lambda: torch.zeros(8, 1, 3, 3, out=model[0].weight),
        lambda: torch._foreach_zero_([model[0].weight]),
        lambda: setattr(model[0], "weight", nn.Parameter(torch.zeros(8, 1, 3, 3))),
    ):
        with torch.no_grad(), pytest.raises(lincon.TargetError, match=r"project|merge"):
            write()
    assert torch.equal(model[0].weight, before)


def test_reading_a_generated_weight_gives_an_ordinary_tensor():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.5)
    weight = model[0].weight
    assert isinstance(weight, torch.Tensor) and weight.shape == (8, 1, 3, 3)
    assert type(weight + 1) is torch.Tensor and type(weight.sum(0)) is torch.Tensor
    assert weight.detach().numpy().shape == (8, 1, 3, 3) and "Weight(" in repr(weight)
    assert float(weight.detach().norm()) > 0 and weight.numel() == 72 and len(weight) == 8


def test_an_optimizer_made_before_is_detected():
    model = convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(lincon.LinconWarning, match="SGD made before"):
        lincon.constrain(model, "ring", dof=0.5)
    del optimizer


def test_type_checks_survive():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.5)
    assert isinstance(model[0], nn.Conv2d) and isinstance(model[6], nn.Linear)
    assert parametrize.type_before_parametrizations(model[0]) is nn.Conv2d


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_quantisation_of_a_merged_model_works():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.5)
    lincon.merge(model)
    quantised = torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear})
    assert quantised(images()).shape == (4, 10)


def test_a_right_inverse_of_nothing_keeps_no_original():
    """What lincon stands on in torch, and torch does not document."""
    model = nn.Linear(3, 2)
    lincon.constrain(model, "ring", dof=0.5)
    stored = model.parametrizations["weight"]
    assert not list(stored.parameters()) and not list(stored.buffers())


def test_modules_on_several_devices_share_one_vector():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    lincon.constrain(model, "ring", dof=0.5, scale=None)
    assert model[0].weight.device.type == "cpu" and model[1].weight.device.type == "meta"
    assert model[1](torch.randn(2, 4, device="meta")).device.type == "meta"


# Scales, scopes, starts.


def test_scale_match_starts_every_tensor_at_its_own_spread():
    plain, model = convnet(), convnet()
    constraint = lincon.constrain(model, "ring", dof=0.1)
    for entry in constraint.ledger:
        torch.testing.assert_close(
            model.get_submodule(entry.name[0]).weight.std(),
            plain.get_parameter(entry.name).std(),
            rtol=0.02,
            atol=0,
        )
        assert entry.scale >= 1
    assert min(e.scale for e in constraint.ledger) == 1


@pytest.mark.parametrize("scale", ["isometric", None])
def test_other_scales_keep_the_overall_spread(scale):
    plain, model = convnet(), convnet()
    constraint = lincon.constrain(model, "hash", dof=0.1, scale=scale)
    wanted = torch.cat([plain.get_parameter(e.name).flatten() for e in constraint.ledger])
    made = torch.cat([w.flatten() for w in constraint.weights().values()])
    assert abs(float(made.detach().std() / wanted.detach().std()) - 1) < 0.05
    assert all(e.scale == 1 for e in constraint.ledger)


def test_a_constant_tensor_is_named_and_left_out_unless_asked_for():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.zeros_(model[1].weight)
    with pytest.warns(lincon.LinconWarning, match=r"1\.weight"):
        constraint = lincon.constrain(model, "ring", dof=0.5)
    assert [e.name for e in constraint.ledger] == ["0.weight"]
    with pytest.warns(lincon.LinconWarning, match=r"Constant until now, and random .*: 1\.weight"):
        lincon.constrain(lincon.merge(model), "ring", dof=0.5, where=["0", "1.weight"])
    assert [entry.name for entry in lincon.constraints(model)[0].ledger] == ["0.weight", "1.weight"]


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.ModuleDict({"enc": nn.TransformerEncoder(layer, 2), "head": nn.Linear(16, 3)})


ENCODER = {
    f"enc.layers.{layer}.{name}.weight".replace("in_proj.weight", "in_proj_weight")
    for layer in range(2)
    for name in ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
}
LINEAR = {name for name in ENCODER if "in_proj" not in name} | {"head.weight"}


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("enc.layers.*", ENCODER),
        ("enc.*", ENCODER),
        ("enc", ENCODER),
        ("en?", ENCODER),
        (["enc.layers.0", "enc.layers.1"], ENCODER),
        ("*.linear[12]", {name for name in ENCODER if ".linear" in name}),
        ("*.self_attn", {name for name in ENCODER if "self_attn" in name}),
        (nn.Linear, LINEAR),
        (nn.TransformerEncoder, ENCODER),
        (nn.MultiheadAttention, {name for name in ENCODER if "self_attn" in name}),
        (nn.Module, ENCODER | {"head.weight"}),
        (
            [nn.MultiheadAttention, "head"],
            {n for n in ENCODER if "self_attn" in n} | {"head.weight"},
        ),
        (lambda name, tensor: "layers" in name, ENCODER),
        (iter(["head"]), {"head.weight"}),
        (None, ENCODER | {"head.weight"}),
    ],
    ids=range(15),
)
def test_modules_patterns_types_and_predicates_choose_weights_and_never_norms(where, names):
    model = encoder()
    rest = {n: p.clone() for n, p in model.named_parameters() if n not in names}
    constraint = lincon.constrain(model, "ring", dof=0.5, where=where)
    assert {entry.name for entry in constraint.ledger} == names
    kept = dict(model.named_parameters())
    assert all(torch.equal(kept[name], tensor) for name, tensor in rest.items())


def test_only_a_name_written_out_whole_constrains_a_bias_or_a_frozen_tensor():
    model = encoder()
    model.head.requires_grad_(False)
    names = ["enc.layers.0.linear1.bias", "head.weight"]
    constraint = lincon.constrain(model, "ring", dof=0.5, where=["enc.layers.1", *names])
    inside = {name for name in ENCODER if "layers.1" in name}
    assert {entry.name for entry in constraint.ledger} == inside | {*names}


def test_constants_that_start_where_they_were_are_not_warned_of():
    for start in ({"offset": True}, {"init": "project"}):
        model = encoder()
        lincon.constrain(model, "ring", dof=64, where="enc.layers.0.norm1.weight", **start)
    assert torch.equal(model.enc.layers[0].norm1.weight, torch.ones(16))


def test_a_parametrized_weight_is_left_out_with_a_warning_and_still_trains():
    model = convnet()
    nn.utils.parametrizations.weight_norm(model[3])
    with pytest.warns(lincon.LinconWarning, match=r"parametrized .*: 3\.parametrizations\.weight"):
        constraint = lincon.constrain(model, "ring", dof=0.5)
    assert [entry.name for entry in constraint.ledger] == ["0.weight", "6.weight"]
    model(images()).sum().backward()
    assert model[3].parametrizations.weight.original1.grad is not None


def test_scopes():
    local = convnet()
    constraint = lincon.constrain(local, "hash", dof=0.5, scope="tensor")
    assert [g.free for g in constraint.groups] == [
        "free_0_weight",
        "free_3_weight",
        "free_6_weight",
    ]
    assert [g.generator.dof for g in constraint.groups] == [36, 576, 2880]
    assert len({g.generator.seed for g in constraint.groups}) == 3
    blocks = lincon.constrain(convnet(), "ring", dof=1000, scope=["0", "3", "6"])
    assert blocks.dof == 1000 and len(blocks.groups) == 3
    budgets = lincon.constrain(convnet(), "ring", scope={"0": 10, "3": 0.5, "6": 100})
    assert [g.generator.dof for g in budgets.groups] == [10, 576, 100]
    parity = lincon.constrain(
        convnet(), "ring", dof=0.1, scope=lambda name: "a" if name[0] in "03" else "b"
    )
    assert [len(g.ledger) for g in parity.groups] == [2, 1]
    step(local, images())


def test_any_generator_or_callable():
    from lincon.generators import Ring

    assert lincon.constrain(convnet(), Ring, dof=0.1, tile=4).groups[0].generator.tile == 4
    made = lincon.constrain(
        convnet(), lambda rows, dof, seed: Ring(rows, dof, seed, order="deck"), dof=0.1
    )
    assert made.groups[0].generator.order == "deck"


def test_offset_starts_at_the_weights_it_found_and_trains_around_them():
    plain, model = convnet().eval(), convnet().eval()
    lincon.constrain(model, "ring", dof=0.05, offset=True)
    assert torch.equal(model(images()), plain(images()))
    step(model, images())
    assert not torch.equal(model(images()), plain(images()))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == round(0.05 * 6984) + 50


def test_warm_start_is_the_least_squares_fit_and_says_how_far_it_is():
    plain, model = convnet(), convnet()
    constraint = lincon.constrain(model, "ring", dof=0.5, init="project")
    made, wanted = (
        {e.name: f(e.name) for e in constraint.ledger}
        for f in (constraint.weights().get, plain.get_parameter)
    )
    missed = sum((made[n] - wanted[n]).square().sum() for n in made) / sum(
        w.square().sum() for w in wanted.values()
    )
    assert 0 < constraint.residual < 1
    torch.testing.assert_close(float(missed) ** 0.5, constraint.residual, rtol=1e-4, atol=0)
    full = lincon.constrain(convnet(), "ring", dof=1.0, init="project")
    assert full.residual < 1e-6


def test_identity_is_the_model_itself():
    plain, model = convnet().eval(), convnet().eval()
    lincon.constrain(model, "identity")
    assert torch.equal(model(images()), plain(images()))


def test_nullspace_keeps_its_equalities_through_training():
    model = convnet()
    lincon.constrain(model, "nullspace", where="3.weight", equalities=zero_sum(8 * 16, 9))
    for _ in range(3):
        step(model, images())
    assert model[3].weight.sum((2, 3)).abs().max() < 1e-5
    linear = nn.Linear(6, 6)
    lincon.constrain(linear, "nullspace", equalities=symmetric(1, 6))
    step(linear, torch.randn(3, 6))
    torch.testing.assert_close(torch.as_tensor(linear.weight), torch.as_tensor(linear.weight).T)
    assert linear.free.numel() == 21
    row = nn.Linear(6, 2)
    lincon.constrain(row, "nullspace", equalities=tied(2, 6)[:9], values=[1.0] * 9)
    assert torch.allclose(row.weight[0, :-1] - row.weight[0, 1:], torch.ones(5), atol=1e-5)


def test_matrix_of_the_users():
    import scipy.sparse
    from scipy.sparse.linalg import aslinearoperator

    dense = torch.randn(24, 5, dtype=torch.float64)
    for matrix in (
        dense,
        dense.numpy(),
        dense.to_sparse(),
        scipy.sparse.csr_array(dense.numpy()),
        aslinearoperator(dense.numpy()),
    ):
        model = nn.Linear(6, 4).double()
        lincon.constrain(model, "matrix", matrix=matrix, scale=None)
        torch.testing.assert_close(torch.as_tensor(model.weight).reshape(-1), dense @ model.free)
        step(model, torch.randn(2, 6, dtype=torch.float64))


def test_double_and_half_models():
    model = convnet().double()
    lincon.constrain(model, "ring", dof=0.5)
    assert model.free.dtype == torch.float64
    step(model, images().double())
    model.bfloat16()
    assert model[0].weight.dtype == torch.bfloat16
    step(model, images().bfloat16())
