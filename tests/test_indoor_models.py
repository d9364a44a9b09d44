"""Cascades of depth and normals: published counts, wiring, what is reused, and their life under a ring."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, interpolate

import lincon
from lincon import LinconError
from lincon.tasks.experiments.schemes.body import body_weights, count_parameters, nearest_width
from lincon.tasks.indoor.models.cascade import FORMS, REUSE, Cascade
from lincon.tasks.indoor.models.network import unit

SMALL = FORMS["small"]
ALL_REUSE = pytest.mark.parametrize("reuse", REUSE)


def tiny(copies=2, reuse="none", **options):
    """Of two resolutions below that of the image."""
    return Cascade(
        16,
        **{
            "copies": copies,
            "reuse": reuse,
            "stride": 2,
            "widths": (6, 8),
            "blocks": 1,
            "levels": (8, 4),
            "convolutions": 1,
            **options,
        },
    )


def meta(make, *arguments, **options):
    with torch.device("meta"):
        return make(*arguments, **options)


def images(n=2, size=16, seed=1):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def trained(model, steps=2, rate=0.01):
    """After steps of one mean size for every parameter, to a depth of 2 and normals along the second axis."""
    for step in range(steps):
        model.zero_grad()
        loss_of(model.train()(images(seed=step))).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= rate * p.grad / p.grad.abs().mean().clamp(min=1e-9)
    return model


def loss_of(outputs):
    depth, normals = outputs
    return (depth - 2).square().mean() - normals[:, :, 1].mean()


def weights_of_one(model):
    return sum(p.numel() for p in model.body[0].parameters() if p.dim() > 1)


# Counts.


def decoder(channels, levels, convolutions, outputs):
    """Parameters: 3x3 convolutions without a bias, norms, and a last convolution with a bias."""
    total, inputs = 0, channels[0]
    for number, level in enumerate(levels, start=1):
        total += (
            9 * inputs * level + 2 * level + (convolutions - 1) * (9 * level * level + 2 * level)
        )
        inputs = level + (channels[number] if number < len(channels) else 0)
    return total + 9 * inputs * outputs + outputs


def test_the_encoder_is_resnet_18_with_seven_input_channels():
    network = meta(Cascade, 256).body[0]
    assert (
        count_parameters(network.encoder) == 11_176_512 + 4 * 64 * 7 * 7
    )  # He et al.'s without its last layer, read 3 channels
    assert sum(isinstance(m, nn.Conv2d) for m in network.encoder.modules()) == 1 + 16 + 3
    channels, levels = (512, 256, 128, 64, 64), (256, 128, 64, 64, 16)
    assert count_parameters(network.depth) == decoder(channels, levels, 2, 1)
    assert count_parameters(network.normals) == decoder(channels, levels, 2, 3)


def test_the_small_form_is_small():
    network = meta(SMALL, 64).body[0]
    assert count_parameters(network.depth) == decoder((64, 32, 16), (32, 16, 8), 1, 1)
    assert 100_000 < count_parameters(network) < 200_000


@pytest.mark.parametrize("make", [Cascade, SMALL])
def test_what_is_reused_counts_once(make):
    one = meta(make, 64)
    models = {reuse: meta(make, 64, copies=3, reuse=reuse) for reuse in REUSE}
    dof = {reuse: count_parameters(model, body_weights(model)) for reuse, model in models.items()}
    own = count_parameters(one, body_weights(one))
    assert own == weights_of_one(one)
    assert dof == {"none": 3 * own, "weights": own, "all": own}
    norms = count_parameters(one) - own
    assert {reuse: count_parameters(model) for reuse, model in models.items()} == {
        "none": 3 * count_parameters(one),
        "weights": own + 3 * norms,
        "all": count_parameters(one),
    }
    assert {reuse: len(model.body) for reuse, model in models.items()} == {
        "none": 3,
        "weights": 3,
        "all": 1,
    }


@ALL_REUSE
def test_nothing_is_outside_of_the_body_and_only_the_heads_have_biases(reuse):
    model = meta(SMALL, 64, copies=2, reuse=reuse)
    assert count_parameters(model) == count_parameters(model.body)
    biased = {
        name.split(".", 2)[2]
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and m.bias is not None
    }
    assert biased == {"depth.out", "normals.out"}


def test_wider_is_larger_even_the_narrowest_works_and_the_nearest_is_found():
    counts = [
        count_parameters(meta(SMALL, 64, width=width)) for width in (1e-9, 0.4, 0.5, 0.9, 1.0)
    ]
    assert counts[0] > 0 and sorted(set(counts)) == counts
    assert SMALL(16, width=1e-9)(images())[0].isfinite().all()
    assert nearest_width(partial(SMALL, 64), count_parameters(meta(SMALL, 64, width=0.5))) == 0.5


# Shapes and ranges.


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (Cascade, 64),
        (partial(Cascade, stride=2), 16),
        (partial(Cascade, stride=1), 8),
        (SMALL, 64),
        (SMALL, 40),
    ],
)
def test_every_sub_network_gives_depth_and_normals_at_the_size_of_the_image(make, size):
    depth, normals = make(size, copies=3, width=0.1)(images(2, size))
    assert depth.shape == (2, 3, size, size) and normals.shape == (2, 3, 3, size, size)


@pytest.mark.parametrize("factor", [0, 1, 1000])
def test_depth_is_positive_and_normals_are_unit_vectors(factor):
    depth, normals = trained(tiny()).eval()(factor * images())
    assert (depth > 0).all() if factor < 1000 else (depth >= 0).all()  # the softplus of -1000 is 0
    assert depth.isfinite().all()
    torch.testing.assert_close(normals.square().sum(2), torch.ones(2, 2, 16, 16))


def test_a_vector_without_a_direction_is_a_unit_vector_without_a_gradient():
    vectors = torch.zeros(1, 3, 1, 3)
    vectors[0, :, 0, 1] = torch.tensor([3.0, 0.0, -4.0])
    vectors[0, :, 0, 2] = torch.tensor([0.0, 1e-9, 0.0])
    vectors.requires_grad_()
    units = unit(vectors)
    assert units[0, :, 0].T.tolist() == [[0, 0, 1], pytest.approx([0.6, 0, -0.8]), [0, 0, 1]]
    units[:, :2].sum().backward()
    # d (x / |v|) = (1, 0, 0) / 5 - 3 v / 125, and d (y / |v|) = (0, 1, 0) / 5
    assert vectors.grad[0, :, 0].T.tolist() == [
        [0] * 3,
        pytest.approx([0.2 - 9 / 125, 0.2, 12 / 125]),
        [0] * 3,
    ]


# Wiring.


def layer(module, features, stride=1, relu=True):
    """A convolution and its norm, with the weights of a module."""
    conv, norm = module[0], module[1]
    features = conv2d(features, conv.weight, None, stride, conv.kernel_size[0] // 2)
    features = batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return features.clamp(min=0) if relu else features


def block(module, features, stride=1):
    hidden = layer(module.second, layer(module.first, features, stride), relu=False)
    straight = isinstance(module.shortcut, nn.Identity)
    return (
        hidden + (features if straight else layer(module.shortcut, features, stride, relu=False))
    ).clamp(min=0)


def test_a_sub_network_joins_what_it_makes_larger_to_what_it_had_there():
    """A network of three resolutions below that of the image, rewritten."""
    options = {"stride": 4, "widths": (6, 8), "blocks": 1, "levels": (8, 5, 4), "convolutions": 2}
    network = trained(tiny(1, **options)).eval().body[0]
    inputs = torch.randn(2, 7, 16, 16)
    stem, (pool, first), second = (
        network.encoder.parts[0],
        network.encoder.parts[1],
        network.encoder.parts[2],
    )
    half = layer(stem, inputs, 2)
    padded = nn.functional.pad(half, (1, 1, 1, 1), value=-torch.inf)
    quarter = block(first[0], padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5)))
    eighth = block(second[0], quarter, 2)
    assert isinstance(pool, nn.MaxPool2d) and eighth.shape == (2, 8, 2, 2)

    def decoded(module):
        hidden = eighth
        for level, skip in zip(module.levels, (quarter, half, None), strict=True):
            hidden = interpolate(
                layer(level[1], layer(level[0], hidden)), scale_factor=2, mode="bilinear"
            )
            hidden = hidden if skip is None else torch.cat([hidden, skip], 1)
        return conv2d(hidden, module.out.weight, module.out.bias, padding=1)

    depth, normals = network(inputs)
    torch.testing.assert_close(
        depth, decoded(network.depth).exp().add(1).log(), rtol=1e-4, atol=1e-5
    )
    vectors = decoded(network.normals)
    torch.testing.assert_close(
        normals, vectors / vectors.square().sum(1, keepdim=True).sqrt(), rtol=1e-4, atol=1e-5
    )


@ALL_REUSE
def test_every_sub_network_sees_the_image_and_what_the_one_before_has_made_of_it(reuse):
    model, seen = tiny(3, reuse).eval(), []
    hooks = [
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for network in model.body
    ]
    depth, normals = model(images())
    for hook in hooks:
        hook.remove()
    assert len(seen) == 3 and torch.equal(
        seen[0], torch.cat([images(), torch.zeros(2, 4, 16, 16)], 1)
    )
    for k in range(3):
        own = model.body[0 if reuse == "all" else k](seen[k])
        assert torch.equal(own[0][:, 0], depth[:, k]) and torch.equal(own[1], normals[:, k])
        if k < 2:
            assert torch.equal(seen[k + 1], torch.cat([images(), own[0], own[1]], 1))


@pytest.mark.parametrize(
    ("head", "first_changes"), [("body.0.depth.out.bias", True), ("body.1.depth.out.bias", False)]
)
def test_another_output_of_the_first_changes_the_second_and_not_the_other_way_round(
    head, first_changes
):
    model = tiny().eval()
    before = model(images())
    model.get_parameter(head).data.add_(1)
    after = model(images())
    assert torch.equal(before[0][:, 0], after[0][:, 0]) != first_changes
    assert (
        torch.equal(before[1][:, 1], after[1][:, 1]) != first_changes
    )  # normals, of which a depth is an input


def test_gradients_flow_from_the_second_sub_network_into_the_first():
    model = tiny()
    depth, _ = model(images())
    depth[:, 1].mean().backward()
    assert all(p.grad.any() for p in model.body[0].parameters() if p.dim() > 1)


def test_the_layout_in_memory_changes_no_result():
    model = tiny().eval()
    expected = model(images())
    found = model.to(memory_format=torch.channels_last)(
        images().contiguous(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# Reuse.


def test_shared_weights_are_those_of_two_and_more_dimensions_and_none_other():
    first, second = tiny(reuse="weights").body
    for (name, mine), (other, theirs) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        assert name == other and (mine is theirs) == (mine.dim() > 1)
    buffers = zip(first.buffers(), second.buffers(), strict=True)
    assert all(mine is not theirs for mine, theirs in buffers)


def test_norms_of_shared_weights_go_their_own_ways():
    first, second = trained(tiny(reuse="weights")).body
    norms = zip(first.modules(), second.modules(), strict=True)
    pairs = [pair for pair in norms if isinstance(pair[0], nn.BatchNorm2d)]
    assert len(pairs) == 1 + 2 + 3 + 2 * 2
    for mine, theirs in pairs:
        assert not torch.equal(mine.running_var, theirs.running_var) and not torch.equal(
            mine.weight, theirs.weight
        )


@pytest.mark.parametrize("reuse", ["weights", "all"])
def test_what_is_reused_computes_what_copies_of_it_compute(reuse):
    model, copies = trained(tiny(3, reuse)), tiny(3)
    for position, network in enumerate(copies.body):
        network.load_state_dict(model.body[position % len(model.body)].state_dict())
    gradients = []
    for each in (model, copies):
        found = each.eval()(images())
        gradients.append((found, torch.autograd.grad(loss_of(found), list(each.parameters()))))
    for mine, theirs in zip(gradients[0][0], gradients[1][0], strict=True):
        assert torch.equal(mine, theirs)
    sums = {name.split(".", 2)[2]: 0 for name, _ in copies.named_parameters()}
    for (name, _), gradient in zip(copies.named_parameters(), gradients[1][1], strict=True):
        sums[name.split(".", 2)[2]] += gradient
    for (name, p), gradient in zip(model.named_parameters(), gradients[0][1], strict=True):
        if p.dim() > 1 or reuse == "all":
            torch.testing.assert_close(gradient, sums[name.split(".", 2)[2]], rtol=1e-3, atol=1e-5)


@ALL_REUSE
def test_a_model_trains_and_comes_back_from_its_file_bit_for_bit(reuse, tmp_path):
    model, other = trained(tiny(reuse=reuse), steps=8), tiny(reuse=reuse)
    assert loss_of(model(images())) < loss_of(tiny(reuse=reuse)(images())) - 0.5
    lincon.save(model, tmp_path / "model.safetensors")
    lincon.load(other, tmp_path / "model.safetensors")
    for mine, theirs in zip(model.eval()(images()), other.eval()(images()), strict=True):
        assert torch.equal(mine, theirs)
    assert (
        count_parameters(other)
        == count_parameters(model)
        == sum(p.numel() for p in other.parameters())
    )
    floats = sum(b.numel() for b in model.buffers())
    assert (
        lincon.inspect(tmp_path / "model.safetensors").total == count_parameters(model) + floats
    )  # tied ones once


def test_equal_seeds_make_equal_models():
    first, second = (torch.manual_seed(5) and tiny() for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


# Under a constraint.


@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_sub_networks_train_out_of_one_ring_of_the_size_of_one_and_come_back(materialize, tmp_path):
    model, before = tiny(), count_parameters(tiny())
    dof = weights_of_one(model)
    constraint = lincon.constrain(
        model, "ring", dof=dof, where=body_weights(model), materialize=materialize
    )
    assert (constraint.dof, constraint.rows, count_parameters(model)) == (
        dof,
        2 * dof,
        before - dof,
    )
    start = model.free.detach().clone()
    first = loss_of(model(images()))
    assert loss_of(trained(model, steps=8, rate=0.003)(images())) < first - 0.5
    assert not torch.isclose(model.free, start, atol=1e-6).all()
    lincon.save(model, tmp_path / "model.safetensors")
    other = tiny()
    lincon.load(other, tmp_path / "model.safetensors")
    for mine, theirs in zip(model.eval()(images()), other.eval()(images()), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(other.free, model.free)


@pytest.mark.parametrize("reuse", ["weights", "all"])
def test_reused_weights_can_be_generated_too(reuse, tmp_path):
    model = tiny(reuse=reuse).eval()
    expected, dof = model(images()), weights_of_one(model)
    weights = {name: model.get_parameter(name).detach().clone() for name in body_weights(model)}
    constraint = lincon.constrain(model, "ring", dof=dof, where=body_weights(model))
    assert constraint.rows == constraint.dof == dof
    constraint.project(weights)
    torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-5)
    lincon.save(trained(model, 1), tmp_path / "model.safetensors")
    other = tiny(reuse=reuse)
    lincon.load(other, tmp_path / "model.safetensors")
    for mine, theirs in zip(model.eval()(images()), other.eval()(images()), strict=True):
        assert torch.equal(mine, theirs)


# Refusals.


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (
            60,
            {},
            "60 x 60 pixels do not divide by 32, .*such as 64, a smaller stride, or fewer widths",
        ),
        (60, {"stride": 2, "widths": (4, 4, 4, 4)}, "do not divide by 16.*such as 64"),
        (0, {}, "size is 0; it must be positive"),
        (64, {"copies": 0}, "copies is 0"),
        (64, {"blocks": 0}, "blocks is 0"),
        (64, {"convolutions": 0}, "convolutions is 0"),
        (64, {"width": float("nan")}, "width is nan"),
        (64, {"stride": 8}, "Unknown stride 8; there are: 1, 2, 4"),
        (64, {"reuse": "weight"}, "Unknown reuse 'weight'; there are: none, weights, all"),
        (64, {"widths": ()}, "widths is empty"),
        (64, {"levels": (8, 8)}, "2 levels for an image that is halved 5 times"),
    ],
)
def test_cascades_that_cannot_be_are_refused(size, options, message):
    with pytest.raises(LinconError, match=message):
        meta(Cascade, size, **options)
