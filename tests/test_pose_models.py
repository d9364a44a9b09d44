"""Models of the pose task: counts that were published or made by hand, wiring, reuse, and their life under a ring."""

from math import exp

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

import lincon
from lincon import LinconError
from lincon.tasks.pose.models.hourglass import Hourglass
from lincon.tasks.pose.models.machine import PoseMachine
from lincon.tasks.pose.skeleton import JOINTS, MIRRORED


def hourglass(stacks=2, **options):
    return Hourglass(16, **{"stacks": stacks, "channels": 8, "depth": 2, **options})


def machine(stages=3, **options):
    return PoseMachine(16, **{"stages": stages, "width": 1 / 16, **options})


TINY = pytest.mark.parametrize("tiny", [hourglass, machine])


def meta(make, *arguments, **options):
    with torch.device("meta"):
        return make(*arguments, **options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def images(n=2, size=16):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def body_weights(model):
    return [
        name for name, p in model.named_parameters() if name.startswith("body.") and p.dim() > 1
    ]


def ring(model, **options):
    """The model with its sub-networks generated from a ring of the size of one."""
    dof = sum(p.numel() for p in model.body[0].parameters() if p.dim() > 1)
    return dof, lincon.constrain(model, "ring", dof=dof, where=body_weights(model), **options)


def inputs_of(modules, run):
    """What each call of the modules was given, in order, while ``run`` ran."""
    seen = []
    hooks = [m.register_forward_pre_hook(lambda _, given: seen.append(given)) for m in modules]
    run()
    for hook in hooks:
        hook.remove()
    return seen


# Counts.


def convolution(inputs, outputs, kernel):
    return inputs * outputs * kernel**2 + outputs


def residual(inputs, outputs):
    inner = outputs // 2
    shortcut = convolution(inputs, outputs, 1) if inputs != outputs else 0
    convolutions = (
        convolution(inputs, inner, 1)
        + convolution(inner, inner, 3)
        + convolution(inner, outputs, 1)
    )
    return 2 * (inputs + inner + inner) + convolutions + shortcut


@pytest.mark.parametrize(("stacks", "total"), [(1, 3_586_960), (2, 6_730_912), (4, 13_018_816)])
def test_hourglasses_have_the_published_parameters(stacks, total):
    model = meta(Hourglass, 256, stacks=stacks)
    stem = (
        convolution(3, 64, 7) + 2 * 64 + residual(64, 128) + residual(128, 256) + residual(256, 256)
    )
    network = 14 * residual(256, 256) + convolution(256, 256, 1) + 2 * 256 + convolution(256, 16, 1)
    link = convolution(256, 256, 1) + convolution(16, 256, 1)
    assert count(model.stem) == stem == 513_152
    assert [count(m) for m in model.body] == [network] * stacks == [3_073_808] * stacks
    assert [count(m) for m in model.links] == [link] * (stacks - 1) == [70_144] * (stacks - 1)
    assert count(model) == total == 513_152 + stacks * 3_073_808 + (stacks - 1) * 70_144
    assert (
        count(meta(Hourglass, 256, stacks=stacks, reuse=True)) == total - (stacks - 1) * 3_073_808
    )


def test_the_pose_machine_has_the_published_parameters():
    model = meta(PoseMachine, 368)
    features = convolution(3, 128, 9) + 2 * convolution(128, 128, 9)
    first = (
        convolution(128, 32, 5)
        + convolution(32, 512, 9)
        + convolution(512, 512, 1)
        + convolution(512, 15, 1)
    )
    inputs = 32 + 15 + 1
    stage = convolution(128, 32, 5) + convolution(inputs, 128, 11) + 2 * convolution(128, 128, 11)
    stage += convolution(128, 128, 1) + convolution(128, 15, 1)
    assert count(model.stem) == features == 2_685_696
    assert count(model.first) == features + first == 4_386_095
    assert [count(m) for m in model.body] == [stage] * 5 == [4_829_615] * 5
    assert count(model) == 4_386_095 + 2_685_696 + 5 * 4_829_615 == 31_219_866
    assert count(meta(PoseMachine, 368, reuse=True)) == count(model) - 4 * stage
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_another_width_scales_the_channels():
    half = meta(Hourglass, 64, width=0.5)
    assert count(half) == count(meta(Hourglass, 64, channels=128))
    assert half.body[0].scores.in_channels == 128 and half.body[0].scores.out_channels == 16
    narrow = meta(PoseMachine, 64, width=0.25)
    assert (
        narrow.body[0].refine[0].in_channels == 8 + 15 + 1
        and narrow.body[0].refine[-1].out_channels == 15
    )
    assert narrow.first[-1].in_channels == 128


@pytest.mark.parametrize("make", [Hourglass, PoseMachine])
def test_wider_is_larger_and_even_the_narrowest_works(make):
    counts = [count(meta(make, 64, width=width)) for width in (1e-9, 0.1, 0.3, 0.31, 0.9, 1.0)]
    assert counts[0] > 0 and sorted(set(counts)) == counts
    assert make(64, width=1e-9)(images(2, 64)).isfinite().all()


# Shapes, and what is said of the maps.


@pytest.mark.parametrize(
    ("size", "stride", "depth"), [(256, 4, 4), (64, 4, 4), (64, 2, 3), (48, 2, 3), (48, 4, 2)]
)
def test_hourglasses_keep_the_heat_maps_at_the_stride(size, stride, depth):
    model = meta(Hourglass, size, stacks=3, channels=16, stride=stride, depth=depth)
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (
        2,
        3,
        16,
        size // stride,
        size // stride,
    )
    assert model.stride == stride


@pytest.mark.parametrize("size", [368, 256, 64, 24, 8])
def test_pose_machines_keep_the_heat_maps_at_an_eighth(size):
    model = meta(PoseMachine, size, stages=3)
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (
        2,
        3,
        15,
        size // 8,
        size // 8,
    )
    assert model.stride == 8


def test_both_models_say_what_their_maps_are():
    assert [JOINTS[part] for part in PoseMachine.parts] == [
        *("head top", "upper neck"),
        *(
            f"{side} {part}"
            for side in ("right", "left")
            for part in ("shoulder", "elbow", "wrist")
        ),
        *(f"{side} {part}" for side in ("right", "left") for part in ("hip", "knee", "ankle")),
    ]
    assert hourglass().parts == tuple(range(16))
    for model in hourglass(stacks=3), machine(stages=3):
        maps = model(images()).shape
        assert (
            maps[1] == len(model.everybody) == 3 and maps[2] == len(model.parts) + model.background
        )
        assert {MIRRORED[part] for part in model.parts} == set(model.parts)
    assert hourglass(stacks=3).everybody == (False, False, False) and not Hourglass.background
    assert machine(stages=3).everybody == (True, False, False) and PoseMachine.background


# Wiring.


def test_an_hourglass_adds_to_every_scale_what_is_below_it():
    """Wei Yang's hourglass, rewritten for a depth of two."""
    top = Hourglass(64, stacks=1, channels=8, depth=2).body[0].features[0].eval()
    features, low = torch.randn(2, 8, 8, 8), top.middle
    half = top.down(halved(features))
    quarter = low.up(low.middle(low.down(halved(half))))
    assert quarter.shape == (2, 8, 2, 2)
    inner = low.skip(half) + doubled(quarter)
    torch.testing.assert_close(top(features), top.skip(features) + doubled(top.up(inner)))


def halved(features):
    return features.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))


def doubled(features):
    return features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_a_residual_normalises_before_it_convolves():
    block = Hourglass(64, stacks=1, channels=8).stem[6].eval()
    features = torch.randn(2, 8, 4, 4)
    hidden = features
    for norm, conv in (
        (block.norm1, block.conv1),
        (block.norm2, block.conv2),
        (block.norm3, block.conv3),
    ):
        hidden = conv(norm(hidden).clamp(min=0))
    torch.testing.assert_close(block(features), features + hidden)


@pytest.mark.parametrize("reuse", [False, True])
def test_the_next_hourglass_gets_the_input_of_the_last_and_what_the_link_makes_of_its_output(reuse):
    model = hourglass(stacks=3, reuse=reuse).eval()
    inputs = [given for (given,) in inputs_of(model.body, lambda: model(images()))]
    maps = model(images())
    assert len(inputs) == 3 and torch.equal(inputs[0], model.stem(images()))
    for k, link in enumerate(model.links):
        features, scores = model.body[0 if reuse else k](inputs[k])
        assert torch.equal(maps[:, k], scores)
        remapped = conv2d(features, link.features.weight, link.features.bias)
        rescored = conv2d(scores, link.scores.weight, link.scores.bias)
        torch.testing.assert_close(inputs[k + 1], inputs[k] + remapped + rescored)


@pytest.mark.parametrize("reuse", [False, True])
def test_every_later_stage_gets_the_features_the_maps_of_the_last_and_the_centre(reuse):
    model = machine(stages=3, reuse=reuse).eval()
    given = inputs_of(model.body, lambda: model(images()))
    maps = model(images())
    assert len(given) == 2
    for k, (features, last, centre) in enumerate(given):
        assert torch.equal(features, model.stem(images())) and torch.equal(last, maps[:, k])
        assert torch.equal(centre, model.centre.expand(2, 1, 2, 2))
    assert torch.equal(maps[:, 0], model.first(images()))


def test_the_centre_moves_all_stages_but_the_first():
    model = machine(stages=3).eval()
    before = model(images())
    model.centre.add_(1)
    differs = (model(images()) != before).flatten(2).any(2)
    assert differs.tolist() == [[False, True, True]] * 2


@pytest.mark.parametrize("size", [368, 64])
def test_the_centre_is_a_gaussian_averaged_over_nine_pixels_every_eight(size):
    middle, deviation = (size - 1) / 2, 21 * size / 368
    lines = [
        [exp(-(((x - middle) / deviation) ** 2) / 2) for x in range(8 * i, min(8 * i + 9, size))]
        for i in range(size // 8)
    ]
    means = torch.tensor([sum(line) / len(line) for line in lines])
    centre = PoseMachine(size, stages=2, width=1e-9).centre[0, 0]
    torch.testing.assert_close(centre, torch.outer(means, means))
    assert centre.max() < 1 and centre[0, 0] < 1e-6


def test_the_centre_is_in_no_file():
    assert "centre" not in machine().state_dict()


def test_the_last_layers_of_stages_may_go_below_zero_and_all_others_may_not():
    model = machine()
    for part in (model.first, *(stage.refine for stage in model.body)):
        layers = [m for m in part if not isinstance(m, nn.MaxPool2d | nn.Dropout)]
        assert [type(m) for m in layers] == [nn.Conv2d, nn.ReLU] * (len(layers) // 2) + [nn.Conv2d]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_pose_machines_start_as_in_caffe():
    model = PoseMachine(16, stages=2)
    for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        assert not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert machine().body[0].refine[2].weight.std().item() == pytest.approx(0.04, rel=0.1)


# Reuse.


def once_and_copies(tiny):
    """A model whose sub-network is reused, and an equal one that has as many copies of it as positions."""
    once, copies = tiny(3, reuse=True), tiny(3)
    with torch.no_grad():
        for name, tensor in once.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    for name, module in copies.named_children():
        if name != "body":
            module.load_state_dict(once.get_submodule(name).state_dict())
    for copy in copies.body:
        copy.load_state_dict(once.body[0].state_dict())
    assert len(once.body) == 1 and len(copies.body) == len(copies.everybody) - (tiny is machine)
    return once, copies


@TINY
@pytest.mark.parametrize("training", [False, True])
def test_a_reused_network_computes_what_copies_of_it_compute(tiny, training):
    outputs = []
    for model in once_and_copies(tiny):
        torch.manual_seed(3)  # for the dropout
        outputs.append(model.train(training)(images()))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0][:, -1], outputs[0][:, -2])


@TINY
def test_a_reused_network_gets_the_sum_of_its_copies_gradients(tiny):
    once, copies = once_and_copies(tiny)
    for model in (once, copies):
        model.eval()(images()).square().mean().backward()
    for name, parameter in once.body[0].named_parameters():
        total = sum(copy.get_parameter(name).grad for copy in copies.body)
        torch.testing.assert_close(parameter.grad, total, rtol=1e-4, atol=1e-7)


# Training.


@TINY
@pytest.mark.parametrize("reuse", [False, True])
def test_every_parameter_gets_a_gradient(tiny, reuse):
    model = tiny(3, reuse=reuse).train()
    (model(images(4)) - 1).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.dim() == 1 or parameter.grad.any(), name


@TINY
def test_equal_seeds_make_equal_models_and_evaluation_is_the_same_twice(tiny):
    first, second = (_seeded(tiny) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert torch.equal(first.train()(images()), first(images())) == (
        tiny is hourglass
    )  # the machine drops out
    assert torch.equal(first.eval()(images()), first(images()))
    assert first(images()).shape == first.train()(images()).shape


def _seeded(make):
    torch.manual_seed(5)
    return make()


# Under a constraint.


@TINY
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_sub_networks_train_out_of_one_ring_of_the_size_of_one(tiny, materialize):
    model = tiny(3).train()
    before = count(model)
    dof, constraint = ring(model, materialize=materialize)
    assert constraint.dof == model.free.numel() == dof
    assert constraint.rows == dof * len(model.body)
    assert count(model) == before - dof * (len(model.body) - 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses, start = [], model.free.detach().clone()
    for _ in range(8):
        loss = (model(images(4)) - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.isclose(model.free, start, atol=1e-6).all()


def test_a_reused_sub_network_can_be_generated_too():
    model = hourglass(stacks=3, reuse=True).eval()
    weights = {name: model.get_parameter(name).detach().clone() for name in body_weights(model)}
    expected = model(images())
    dof, constraint = ring(model)
    assert constraint.rows == constraint.dof == dof
    constraint.project(weights)
    torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-5)


@TINY
def test_a_constrained_model_comes_back_from_its_file_bit_for_bit(tiny, tmp_path):
    model = tiny()
    ring(model, seed=7)
    model.train()(images(4))  # moves the statistics of norms
    lincon.save(model, tmp_path / "model.safetensors")
    other = tiny()
    lincon.load(other, tmp_path / "model.safetensors")
    assert torch.equal(other.eval()(images()), model.eval()(images()))
    assert torch.equal(other.free, model.free)
    merged = model(images())
    lincon.merge(model)
    assert torch.equal(model(images()), merged)


@TINY
def test_models_can_be_exported(tiny):
    model = tiny(2).eval()
    exported = torch.export.export(model, (images(),)).module()
    torch.testing.assert_close(exported(images()), model(images()))


# Refusals.


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (
            60,
            {},
            r"60 x 60 pixels do not divide by 64, stride 4 x 2 to the depth 4: .*such as 64, or less depth",
        ),
        (96, {}, "such as 128"),
        (72, {"depth": 3, "stride": 2}, "do not divide by 16.*such as 80"),
        (64, {"stride": 8}, "Unknown stride 8; there are: 2, 4"),
        (0, {}, "size is 0; it must be positive"),
        (64, {"stacks": 0}, "stacks is 0"),
        (64, {"depth": 0}, "depth is 0"),
        (64, {"channels": -4}, "channels is -4"),
        (64, {"width": 0.0}, "width is 0.0"),
        (64, {"width": float("nan")}, "width is nan"),
    ],
)
def test_hourglasses_that_cannot_be_are_refused(size, options, message):
    with pytest.raises(LinconError, match=message):
        meta(Hourglass, size, **options)


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (60, {}, "60 x 60 pixels do not divide by 8, .*such as 64"),
        (0, {}, "do not divide by 8.*such as 8"),
        (-8, {}, "do not divide by 8.*such as 8"),
        (64, {"stages": 1}, "of 1 stages has none to share: ask for 2"),
        (64, {"width": -1.0}, "width is -1.0"),
    ],
)
def test_pose_machines_that_cannot_be_are_refused(size, options, message):
    with pytest.raises(LinconError, match=message):
        meta(PoseMachine, size, **options)
