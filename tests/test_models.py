"""Models of the classification task: counts that were published or made by hand, names, options, import paths."""

import pickle
import sys
from functools import partial

import pytest
import torch
from torch import nn

import lincon
from lincon import LinconError
from lincon.tasks.classification.models import (
    MODELS,
    ResNet,
    architecture,
    body_weights,
    count_parameters,
    nearest_width,
)


def meta(name, *arguments, **options):
    with torch.device("meta"):
        return architecture(name)(*arguments, **options)


def part(model, kernel):
    """Weights of the body's convolutions of one kernel size."""
    return sum(
        m.weight.numel()
        for m in model.body.modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (kernel,) * 2
    )


# Counts. Of ResNets: Wang et al. 2023 and the authors' code; those of ImageNet are torchvision's.


@pytest.mark.parametrize(
    ("name", "layers", "stages", "norms", "cifar100", "imagenet"),
    [
        ("resnet18", 19, [147_456, 524_288, 2_097_152, 8_388_608], 9_600, 11_220_132, 11_689_512),
        (
            "resnet34",
            35,
            [221_184, 1_114_112, 6_815_744, 13_107_200],
            17_024,
            21_328_292,
            21_797_672,
        ),
    ],
)
def test_resnets_have_the_published_parameters(name, layers, stages, norms, cifar100, imagenet):
    for model, total, stem, head in (
        (meta(name, 3, 100, 32), cifar100, 1_728, 51_300),
        (meta(f"{name}-imagenet", 3, 1000, 224), imagenet, 9_408, 513_000),
    ):
        names = body_weights(model)
        assert len(names) == layers
        assert [
            count_parameters(model, [n for n in names if n.startswith(f"body.{i}.")])
            for i in range(4)
        ] == stages
        assert part(model, 1) == 172_032 and part(model, 3) + part(model, 1) == sum(stages)
        assert model.stem[0].weight.numel() == stem and count_parameters(model.head) == head
        assert (
            sum(count_parameters(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
            == norms
        )
        assert count_parameters(model) == total == sum(stages) + norms + stem + head


def test_a_strided_stem_halves_the_image_and_changes_no_weight():
    plain, strided = (MODELS["resnet14"](1, 10, 16, stride=stride) for stride in (1, 2))
    images = torch.zeros(2, 1, 16, 16)
    assert plain.stem(images).shape[2:] == (16, 16)
    assert strided.stem(images).shape[2:] == (8, 8)
    counts = [count_parameters(each, body_weights(each)) for each in (plain, strided)]
    assert counts == [173_056] * 2


@pytest.mark.parametrize("options", [{"stride": 3}, {"stride": 2, "form": "imagenet"}])
def test_a_stride_that_no_stem_has_is_refused(options):
    with pytest.raises(LinconError, match="stride is"):
        ResNet(1, 10, widths=(8,), blocks=(1,), **options)


def test_resnet20_has_the_parameters_of_the_cifar_network_with_convolutional_shortcuts():
    model = meta("resnet20", 3, 10, 32)
    assert count_parameters(model, body_weights(model)) + model.stem[0].weight.numel() == 270_256
    assert part(model, 1) == 16 * 32 + 32 * 64
    assert count_parameters(model) == 272_474
    statistics = sum(b.numel() for name, b in model.named_buffers() if "running" in name)
    assert count_parameters(model) + statistics == 274_042


@pytest.mark.parametrize(
    ("name", "dim", "deit"),
    [("vit-tiny", 192, 5_717_416), ("vit-small", 384, 22_050_664)],
    ids=["tiny", "small"],
)
def test_vits_have_the_parameters_of_deit(name, dim, deit):
    patches = 3 * 16 * 16 * dim + dim
    tokens = dim + (1 + 14 * 14) * dim
    attention = (3 * dim * dim + 3 * dim) + (dim * dim + dim)
    perceptron = (dim * 4 * dim + 4 * dim) + (4 * dim * dim + dim)
    layer = attention + perceptron + 2 * 2 * dim
    model = meta(name, 3, 1000, 224)
    assert (
        count_parameters(model)
        == patches + tokens + 12 * layer + 2 * dim + dim * 1000 + 1000
        == deit
    )
    assert count_parameters(model, body_weights(model)) == 12 * 12 * dim * dim
    assert len(body_weights(model)) == 12 * 4


# Shapes.


@pytest.mark.parametrize("name", MODELS)
def test_every_model_maps_images_to_logits_in_every_width(name):
    size = 32
    assert meta(name, 3, 7, size)(torch.randn(2, 3, size, size, device="meta")).shape == (2, 7)
    narrow = meta(name, 1, 7, size, width=0.5)
    assert narrow(torch.randn(2, 1, size, size, device="meta")).shape == (2, 7)
    assert (
        count_parameters(narrow, body_weights(narrow))
        < count_parameters(meta(name, 1, 7, size)) / 2
    )
    assert set(body_weights(narrow)) < set(dict(narrow.named_parameters()))
    assert count_parameters(meta(name, 1, 7, size, width=1e-9)) > 0


@pytest.mark.parametrize(("name", "side"), [("resnet34-imagenet", 7), ("resnet34", 28)])
def test_the_imagenet_form_halves_the_image_five_times(name, side):
    model = meta(name, 3, 1000, 224)
    assert model.body(model.stem(torch.randn(1, 3, 224, 224, device="meta"))).shape == (
        1,
        512,
        side,
        side,
    )


@pytest.mark.parametrize(
    ("size", "patch"), [(8, 2), (28, 4), (32, 4), (64, 8), (128, 16), (224, 16)]
)
def test_patches_grow_with_the_image(size, patch):
    model = meta("vit-micro", 1, 10, size)
    assert model.stem.kernel_size == model.stem.stride == (patch, patch)
    assert model.position_embedding.shape == (1, 1 + (size // patch) ** 2, 32)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit-tiny", 30, "30 x 30 pixels cannot be cut in patches of 4 x 4"),
        ("vit-tiny:patch=5", 32, "patches of 5 x 5"),
        ("vit-tiny:heads=5", 32, "dim of 192 cannot be shared by 5 heads"),
        ("resnet18-imagenet", 28, "cannot be halved 5 times"),
        ("resnet18", 4, "cannot be halved 3 times"),
    ],
)
def test_images_that_do_not_fit_a_model_are_refused(name, size, message):
    with pytest.raises(LinconError, match=message):
        architecture(name)(3, 10, size)


def test_an_unknown_form_of_resnet_is_refused():
    with pytest.raises(LinconError, match=r"'mnist'.*cifar, imagenet"):
        ResNet(3, 10, widths=(4,), blocks=(1,), form="mnist")


# The vision transformer.


def test_the_layers_of_a_vit_start_different_and_as_wide_as_deits():
    model = architecture("vit-tiny:depth=2")(3, 10, 32)
    first, second = model.body.layers
    for name, weight in first.named_parameters():
        if weight.dim() > 1:
            assert not torch.equal(weight, second.get_parameter(name))
            assert weight.std().item() == pytest.approx(0.02, rel=0.02)
        elif "norm" not in name:
            assert not weight.any()
    assert model.position_embedding.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("materialize", ["model", "layer"])
@pytest.mark.parametrize(
    "name", ["vit-micro", "vit-micro:dim=33,heads=3"], ids=["even heads", "odd heads"]
)
def test_a_constrained_vit_gives_equal_outputs_in_training_evaluation_and_merged(name, materialize):
    """Without gradients torch evaluates layers of an even number of heads by one fused kernel."""
    torch.manual_seed(0)
    model, images = architecture(name)(1, 10, 8), torch.randn(4, 1, 8, 8)
    names = body_weights(model)
    lincon.constrain(model, "ring", dof=0.2, where=names, materialize=materialize)
    trained = model.train()(images)
    trained.sum().backward()
    assert model.free.grad.any()
    assert torch.equal(model.eval()(images), trained)
    with torch.no_grad():
        evaluated = model(images)
        torch.testing.assert_close(evaluated, trained, rtol=1e-5, atol=1e-5)
        model.free.mul_(2)
        assert not torch.allclose(model(images), evaluated, rtol=1e-3, atol=1e-3)
        expected = model(images)
        lincon.merge(model)
        assert torch.equal(model(images), expected)
    assert body_weights(model) == names


# What may be constrained.


def test_of_a_foreign_model_all_but_the_first_and_the_last_layer_may_be_constrained():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.Linear(8, 3),
    )
    assert body_weights(model) == ["2.weight", "4.weight"]
    model[2].weight.requires_grad = False
    assert body_weights(model) == ["4.weight"]


def test_embeddings_and_biases_of_a_foreign_model_are_never_constrained():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Parameter(torch.randn(1, 5, 8))
            self.words = nn.Embedding(10, 8)
            self.first = nn.Linear(8, 8)
            self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
            self.last = nn.Linear(8, 8)

    assert body_weights(Foreign()) == ["attention.in_proj_weight", "attention.out_proj.weight"]


def test_a_layer_tied_to_the_last_is_the_last():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[3].weight = model[1].weight
    assert body_weights(model) == ["2.weight"]


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), nn.ReLU()], ids=["two", "none"]
)
def test_a_foreign_model_without_layers_between_is_refused(model):
    with pytest.raises(LinconError, match="called body"):
        body_weights(model)


# Options.


def test_options_follow_the_name():
    model = meta("vit-tiny:patch=2,depth=3, mlp_ratio=1.5", 3, 10, 32)
    assert model.stem.kernel_size == (2, 2) and len(model.body.layers) == 3
    assert model.body.layers[0].linear1.out_features == 288
    assert count_parameters(meta("resnet18:width=0.5", 3, 10, 32)) == count_parameters(
        meta("resnet18", 3, 10, 32, width=0.5)
    )


def test_another_width_may_be_asked_for_beside_options():
    model = meta("vit-tiny:patch=8", 3, 10, 32, width=0.5)
    assert model.head.in_features == 96 and model.stem.kernel_size == (8, 8)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_names_its_options(name):
    with pytest.raises(LinconError, match=f"option of {name} 'colour'; there are: .*width"):
        architecture(f"{name}:colour=3")


@pytest.mark.parametrize(
    "text",
    ["patch=2.5", "patch=", "patch", "patch=two", "patch=0", "width=nan", "width=-1", "width=0"],
)
def test_an_option_without_a_proper_value_is_refused(text):
    with pytest.raises(LinconError, match=f"{text[:5]}.* is .*(positive|from 0)"):
        meta(f"vit-tiny:{text}", 3, 10, 32)


def test_an_option_that_is_no_number_cannot_be_given_in_a_name():
    with pytest.raises(LinconError, match="option of resnet18 'blocks'"):
        architecture("resnet18:blocks=3")


@pytest.mark.parametrize("name", ["resnet19", "", "resnet18-Imagenet"])
def test_an_unknown_model_is_refused_with_those_there_are(name):
    with pytest.raises(LinconError, match=r"Unknown model.*vit-small"):
        architecture(name)


# Import paths.


ELSEWHERE = """
import torch
from torch import nn

def none():
    return nn.Linear(4, 2)

def named(classes, channels=5, *, bias=True):
    return nn.Linear(channels, classes, bias)

def placed(inputs, outputs, pixels, depth=1):
    return nn.Linear(inputs * pixels, outputs)

def two(inputs, outputs, /):
    return nn.Linear(inputs, outputs)

def defaults(num_classes=10, **rest):
    return nn.Linear(4, num_classes)

def star(*arguments):
    return nn.Linear(*arguments[:2])

def wide(channels, classes, width=1.0):
    hidden = max(1, round(100 * width))
    return nn.Sequential(nn.Linear(channels, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes))

class Net(nn.Linear):
    def __init__(self, channels, classes):
        super().__init__(channels, classes)

def more(channels, classes, size, depth):
    return nn.Linear(channels, classes)

def deep(channels, classes, depth=1):
    return nn.Linear(channels * depth, classes)

def channels_wide(classes, width=8):
    return nn.Linear(width, classes)

def four(a, b, c, d):
    return nn.Linear(a, b)

def text():
    return "a model"

number = 3
ready = nn.Linear(4, 2)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A module `elsewhere.models` on the path."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "models.py").write_text(ELSEWHERE)
    (tmp_path / "elsewhere" / "needy.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "elsewhere"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("none", (2, 4)),
        ("named", (7, 3)),
        ("placed", (7, 27)),
        ("two", (7, 3)),
        ("defaults", (10, 4)),
        ("star", (7, 3)),
        ("Net", (7, 3)),
    ],
)
def test_a_function_from_elsewhere_is_given_what_its_signature_takes(elsewhere, name, shape):
    make = architecture(f"elsewhere.models:{name}")
    assert make(3, 7, 9).weight.shape == make(3, 7, 9, width=1.0).weight.shape == shape
    assert pickle.loads(pickle.dumps(make))(3, 7, 9).weight.shape == shape


def test_a_function_from_elsewhere_that_takes_a_width_can_be_made_narrower(elsewhere):
    make = partial(architecture("elsewhere.models:wide"), 3, 7, 9)
    assert make()[0].out_features == 100 and make(width=0.5)[0].out_features == 50
    hidden = 30
    assert nearest_width(make, 4 * hidden + (hidden + 1) * hidden + (hidden + 1) * 7) == 0.3


def test_numbers_of_a_function_from_elsewhere_are_options(elsewhere):
    make = architecture("elsewhere.models:deep:depth=2")
    assert make(3, 7, 9).weight.shape == (7, 6)
    assert pickle.loads(pickle.dumps(make))(3, 7, 9).weight.shape == (7, 6)
    with pytest.raises(LinconError, match="deep 'deep'; there are: depth"):
        architecture("elsewhere.models:deep:deep=2")
    with pytest.raises(LinconError, match="two has no options"):
        architecture("elsewhere.models:two:depth=2")


def test_a_width_that_is_no_factor_is_refused_where_it_would_be_taken_for_one(elsewhere):
    make = partial(architecture("elsewhere.models:channels_wide"), 3, 7, 9)
    assert make().weight.shape == (7, 8)
    with pytest.raises(LinconError, match="channels_wide: width is 8; the scheme small sets it"):
        nearest_width(make, 10)


def test_a_function_from_elsewhere_without_a_width_cannot(elsewhere):
    with pytest.raises(
        LinconError, match=r"elsewhere.models:named takes no argument `width`; the scheme small"
    ):
        nearest_width(partial(architecture("elsewhere.models:named"), 3, 7, 9), 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("elsewhere.nomodels:none", "Cannot import 'elsewhere.nomodels'.*PYTHONPATH"),
        ("elsewhere.needy:none", "nowhere_at_all"),
        ("resnet:width=2", "Cannot import 'resnet'.*resnet18"),
        (":none", "Cannot import ''"),
        ("elsewhere.nomodels:none", "Cannot import 'elsewhere.nomodels': No module named"),
        ("elsewhere/models.py:none", "elsewhere/models.py is a file: .* elsewhere.models"),
        ("elsewhere", "Unknown model 'elsewhere'; .* package.module:function"),
        (".models:none", "Cannot import"),
        ("elsewhere.models:nothing", "has no 'nothing'.*It has: none, named, .*Net"),
        ("elsewhere.models:", "has no ''"),
        ("elsewhere.models:number", "Module 'elsewhere.models' has a int called 'number'"),
        (
            "elsewhere.models:ready",
            "has a Linear called 'ready'; a function or class that makes a model",
        ),
        ("elsewhere.models:more", "missing a required.*'depth'"),
        ("elsewhere.models:four", "missing a required.*'d'"),
        ("elsewhere.models:text", "returned a str"),
    ],
)
def test_what_cannot_be_imported_or_called_is_refused_by_name(elsewhere, name, message):
    with pytest.raises(LinconError, match=message):
        architecture(name)(3, 7, 9)
