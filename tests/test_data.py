"""Data sets: official formats read back to the pixel, damage refused by name, order and shifts reproducible."""

import lightning
import numpy as np
import pytest
import torch

from lincon import LinconError
from lincon.tasks.classification.data import DATA, Digits, Images
from lincon.tasks.classification.data.cifar import Cifar10
from lincon.tasks.classification.data.sets import stratified

from .classification_files import labels_of


def test_data_sets_are_known_by_their_names():
    assert next(iter(DATA)) == "digits" and {
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "imagenet",
    } <= set(DATA)
    assert all(data.name == name and issubclass(data, Images) for name, data in DATA.items())


def test_digits_are_images_from_0_to_1_split_by_class():
    data = Digits()
    (images, labels), (test_images, test_labels) = data.train_set.tensors, data.test_set.tensors
    assert images.shape == (1297, 1, 8, 8) and test_images.shape == (500, 1, 8, 8)
    assert images.min() == 0 and images.max() == 1 and (images * 16).frac().abs().max() == 0
    shares = [torch.bincount(of, minlength=10) / len(of) for of in (labels, test_labels)]
    assert (shares[0] - shares[1]).abs().max() < 0.002


def test_prepared_training_images_have_mean_0_and_deviation_1():
    data = Digits()
    prepared = torch.cat([data.prepare(images) for images, _ in data.evaluation_loader(train=True)])
    assert len(prepared) == 1297 and abs(prepared.mean()) < 1e-5 and abs(prepared.std() - 1) < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels.double(), "float64 from 0 to 9"),
        (lambda labels: labels + 1, "int64 from 1 to 10"),
        (lambda labels: labels - 1, "int64 from -1 to 8"),
        (lambda labels: labels.int(), "int32"),
    ],
)
def test_labels_of_a_data_set_class_are_int64_from_0(change, words):
    class Mine(Digits):
        name = "mine"

        def _read(self, root):
            train, test = super()._read(root)
            test.labels = change(test.labels)
            return train, test

    with pytest.raises(LinconError, match=f"test labels of data set 'mine' are .*{words}"):
        Mine(limit=100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images.double(), r"\(1, 8, 8\) of torch.float64"),
        (lambda images: images[:, 0], r"\(8, 8\) of torch.float32"),
        (lambda images: images.expand(-1, 3, -1, -1), r"\(3, 8, 8\)"),
    ],
)
def test_images_of_a_data_set_class_have_its_channels(change, words):
    class Mine(Digits):
        name = "mine"

        def _read(self, root):
            train, test = super()._read(root)
            train.tensors = change(train.tensors[0]), train.labels
            return train, test

    with pytest.raises(LinconError, match=f"training images of data set 'mine' are {words}"):
        Mine()


def test_a_data_set_class_without_mean_is_told_where_to_set_it():
    class Mine(Images):
        name, channels, classes, size = "mine", 1, 10, 8

        def _read(self, root):
            return Digits._read(Digits(), root)

    with pytest.raises(LinconError, match=r"'mine' has no mean and std of shape .* set both"):
        Mine()


def test_bytes_are_prepared_by_channel():
    data = object.__new__(Cifar10)
    prepared = data.prepare(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert prepared.tolist() == pytest.approx(
        [(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616]
    )


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, first):
        data = Digits(seed)
        data.first_epoch = first
        return labels_of(data.train_dataloader())

    kept = order(3, 5)
    torch.manual_seed(99)
    assert len(kept) == 1297 // 64 * 64 and order(3, 5).equal(kept)
    assert (
        not order(4, 5).equal(kept) and not order(3, 6).equal(kept) and not order(5, 3).equal(kept)
    )


def test_a_loader_gives_the_same_order_each_time_and_leaves_the_random_state_alone():
    loader, state = Digits().train_dataloader(), torch.get_rng_state()
    assert labels_of(loader).equal(labels_of(loader))
    assert torch.get_rng_state().equal(state)


def test_an_epoch_shows_every_image_once():
    data = Digits(batch=1)
    images = torch.cat([images for images, _ in data.train_dataloader()])
    assert len(images.unique(dim=0)) == len(data.train_set) == 1297


def test_fewer_images_than_a_batch_are_one_batch():
    data = Digits(limit=20)
    assert [len(labels) for _, labels in data.train_dataloader()] == [20]


class Recorder(lightning.LightningModule):
    """Keeps the labels and the images that it is shown."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.shown, self.tested = [], []

    def training_step(self, batch):
        self.shown.append((self.current_epoch, *batch))
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch):
        self.tested.append(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def labels(self, epoch):
        return torch.cat([labels for at, _, labels in self.shown if at == epoch])


def fit(folder, epochs, ckpt_path=None):
    recorder = Recorder()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
    )  # fmt: skip
    trainer.fit(recorder, datamodule=Digits(7, limit=128), ckpt_path=ckpt_path, weights_only=True)
    return recorder, trainer


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_training_sees_the_order_it_would_have_seen(tmp_path):
    whole, _ = fit(tmp_path, 2)
    _, trainer = fit(tmp_path, 1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = fit(tmp_path, 2, tmp_path / "half.ckpt")
    assert {epoch for epoch, *_ in rest.shown} == {1}
    assert rest.labels(1).equal(whole.labels(1)) and not whole.labels(0).equal(whole.labels(1))


@pytest.mark.filterwarnings("ignore")
def test_only_training_images_are_augmented(tmp_path):
    recorder, trainer = fit(tmp_path, 1)
    data = trainer.datamodule
    assert torch.cat(recorder.tested).equal(data.prepare(data.test_set.tensors[0]))
    as_they_are = {image.numpy().tobytes() for image in data.prepare(data.train_set.tensors[0])}
    changed = [
        image.numpy().tobytes() not in as_they_are
        for _, images, _ in recorder.shown
        for image in images
    ]
    assert 0.7 < np.mean(changed) < 1  # eight shifts of nine change an image


def test_augmentation_shifts_by_at_most_one_pixel():
    image = torch.zeros(64, 1, 8, 8)
    image[:, :, 4, 4] = 1
    places = Digits().augment(image).nonzero()[:, 2:]
    assert places.min() == 3 and places.max() == 5 and len(places) == 64


def test_a_limit_keeps_the_shares_of_the_classes_whatever_the_seed():
    first, other = Digits(0, limit=200), Digits(1, limit=200)
    assert first.train_set.tensors[0].equal(other.train_set.tensors[0])
    whole = Digits().train_set.labels.bincount() / 1297
    assert (first.train_set.labels.bincount() - 200 * whole).abs().max() <= 1
    assert len(first.train_set) == 200 and len(first.test_set) == 500


def test_a_small_choice_has_every_class_once_and_lies_in_larger_ones():
    labels = torch.arange(10).repeat(7)
    choices = [set(stratified(labels, count).tolist()) for count in (10, 25, 70)]
    assert sorted(labels[list(choices[0])].tolist()) == list(range(10))
    assert choices[0] < choices[1] < choices[2] == set(range(70))


def test_a_choice_from_unequal_classes_is_apportioned():
    labels = torch.tensor([0] * 60 + [2] * 30 + [3] * 10)
    assert labels[stratified(labels, 10)].bincount().tolist() == [6, 0, 3, 1]
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert [labels[stratified(labels, count)].sum().item() for count in (4, 6, 14, 16)] == [
        0,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize("limit", [0, -1, 1298])
def test_a_limit_that_cannot_be_had_is_refused(limit):
    with pytest.raises(LinconError, match=f"{limit} training images.*1 to 1297"):
        Digits(limit=limit)
