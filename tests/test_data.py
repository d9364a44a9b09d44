"""Data sets: official formats read back to the pixel, damage refused by name, order and shifts reproducible."""

import gzip
import json
import os
import pickle
import struct
import traceback

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from lincon import LinconError
from lincon.tasks.classification.data import DATA, Digits, Images, folders, idx
from lincon.tasks.classification.data.cifar import Cifar10, Cifar100
from lincon.tasks.classification.data.folders import ImageNet
from lincon.tasks.classification.data.idx import FashionMNIST
from lincon.tasks.classification.data.objectnet import ObjectNet, protocol
from lincon.tasks.classification.data.sets import stratified
from lincon.tasks.classification.data.shifts import SHIFTS, STRENGTHS


def some_bytes(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def labels_of(loader):
    return torch.cat([labels for _, labels in loader])


# What all data sets have in common.


def test_data_sets_are_known_by_their_names():
    assert list(DATA) == ["digits", "fashion-mnist", "cifar10", "cifar100", "imagenet"]
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


def test_bytes_are_prepared_by_channel():
    data = object.__new__(Cifar10)
    prepared = data.prepare(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert prepared.tolist() == pytest.approx([(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616])


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, first):
        data = Digits(seed)
        data.first = first
        return labels_of(data.train_dataloader())

    kept = order(3, 5)
    torch.manual_seed(99)
    assert len(kept) == 1297 // 64 * 64 and order(3, 5).equal(kept)
    assert not order(4, 5).equal(kept) and not order(3, 6).equal(kept) and not order(5, 3).equal(kept)


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
    changed = [image.numpy().tobytes() not in as_they_are for _, images, _ in recorder.shown for image in images]
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
    assert [labels[stratified(labels, count)].sum().item() for count in (4, 6, 14, 16)] == [0, 1, 1, 2]


@pytest.mark.parametrize("limit", [0, -1, 1298])
def test_a_limit_that_cannot_be_had_is_refused(limit):
    with pytest.raises(LinconError, match=f"{limit} training images.*1 to 1297"):
        Digits(limit=limit)


# IDX.


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder, compress, train=6, test=4):
    """The four files; the arrays written, in the order of `idx.FILES`."""
    arrays = [some_bytes(train, 28, 28), some_bytes(train, seed=1) % 10, some_bytes(test, 28, 28, seed=2)]
    arrays.append(some_bytes(test, seed=3) % 10)
    for name, array in zip(idx.FILES, arrays, strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_are_read_to_the_pixel(tmp_path, compress):
    train, labels, test, test_labels = write_fashion(tmp_path, compress)
    data = FashionMNIST(root=tmp_path)
    assert data.train_set.tensors[0].equal(train[:, None]) and data.train_set.tensors[1].equal(labels.long())
    assert data.test_set.tensors[0].equal(test[:, None]) and data.test_set.tensors[1].equal(test_labels.long())


def refuse_fashion(folder, match):
    with pytest.raises(LinconError, match=match) as refusal:
        FashionMNIST(root=folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


@pytest.mark.parametrize("length", [4719, 4721])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_of_another_length_are_named_with_both_lengths(tmp_path, length, compress):
    write_fashion(tmp_path, compress=False)
    path = tmp_path / idx.FILES[0]
    content = (path.read_bytes() + b"0")[:length]
    if compress:
        path.unlink()
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    refuse_fashion(tmp_path, rf"{path.name} has {length} bytes .* 4720")


def test_a_truncated_or_false_gz_is_named(tmp_path):
    write_fashion(tmp_path, compress=True)
    path = tmp_path / f"{idx.FILES[2]}.gz"
    whole = path.read_bytes()
    for content in (whole[:-20], b"no gz", whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(content)
        refuse_fashion(tmp_path, rf"{path.name} cannot be read")


@pytest.mark.parametrize("start", [b"", b"\0\0", b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\x08\x03\0\0"])
def test_another_magic_number_is_named(tmp_path, start):
    write_fashion(tmp_path, compress=False)
    path = tmp_path / idx.FILES[0]
    path.write_bytes(start + path.read_bytes()[4:] if len(start) == 4 else start)
    refuse_fashion(tmp_path, rf"{path.name} begins with {start.hex()},.* 00000803")


def test_a_file_that_ends_in_its_header_is_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    path = tmp_path / idx.FILES[0]
    path.write_bytes(path.read_bytes()[:10])
    refuse_fashion(tmp_path, rf"{path.name} has 10 bytes")


def test_images_of_another_size_are_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    (tmp_path / idx.FILES[0]).write_bytes(idx_bytes(some_bytes(6, 8, 8)))
    refuse_fashion(tmp_path, "6 x 8 x 8 bytes, not n x 28 x 28")


def test_more_images_than_labels_are_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    (tmp_path / idx.FILES[3]).write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    refuse_fashion(tmp_path, r"4 images, .*t10k-labels-idx1-ubyte 3 labels")


def test_a_label_of_no_class_is_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    (tmp_path / idx.FILES[1]).write_bytes(idx_bytes(np.array([0, 1, 10, 2, 3, 4], np.uint8)))
    refuse_fashion(tmp_path, r"train-labels-idx1-ubyte holds a label 10")


def test_missing_files_are_named_with_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "PACKAGED", tmp_path)
    with pytest.raises(LinconError, match=r"dataset-fashion-mnist.*--root FOLDER") as refusal:
        FashionMNIST()
    assert all(name in str(refusal.value) for name in idx.FILES)
    write_fashion(tmp_path, compress=True)
    (tmp_path / f"{idx.FILES[1]}.gz").unlink()
    with pytest.raises(LinconError, match=idx.FILES[1]) as refusal:
        FashionMNIST()
    assert not any(name in str(refusal.value) for name in (idx.FILES[0], *idx.FILES[2:]))


@pytest.mark.skipif(not idx.PACKAGED.exists(), reason="Debian's package is not installed")
def test_the_packaged_fashion_mnist_is_the_published_one():
    data = FashionMNIST()
    assert len(data.train_set) == 60_000 and len(data.test_set) == 10_000
    assert data.train_set.labels.bincount().tolist() == [6000] * 10
    pixels = data.train_set.tensors[0].float() / 255
    assert pixels.mean().item() == pytest.approx(data.mean.item(), abs=1e-4)
    assert pixels.std().item() == pytest.approx(data.std.item(), abs=1e-4)


# CIFAR.


def cifar10_parts():
    """Name -> (rows of 3,072 bytes, labels), two images a file."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {name: (some_bytes(2, 3072, seed=i), [i, 9 - i]) for i, name in enumerate(names)}


def cifar100_parts():
    return {name: (some_bytes(2, 3072, seed=i), [99, i]) for i, name in enumerate(("train", "test"))}


def write_binary(folder, parts, coarse=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, labels) in parts.items():
        prefix = [bytes([7, label]) if coarse else bytes([label]) for label in labels]
        records = zip(prefix, rows, strict=True)
        (folder / f"{name}.bin").write_bytes(b"".join(before + row.tobytes() for before, row in records))


def python2_pickle(entries):
    """As Python 2's cPickle wrote the published files, in protocol 2."""

    def text(of):
        return b"U" + bytes([len(of)]) + of.encode()

    def number(of):
        return b"J" + struct.pack("<i", of)

    def value(of):
        if isinstance(of, str):
            return text(of)
        if isinstance(of, list):
            return b"](" + b"".join(text(one) if isinstance(one, str) else number(one) for one in of) + b"e"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text("b") + b"\x87R"
        state = b"(K\x03" + text("|") + b"NNN" + number(-1) * 2 + b"K\0tb"
        dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\0K\x01\x87R" + state
        shape = number(of.shape[0]) + number(of.shape[1]) + b"\x86"
        content = b"T" + struct.pack("<i", of.size) + of.tobytes()
        return made + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"

    return b"\x80\x02}(" + b"".join(text(key) + value(of) for key, of in entries.items()) + b"u."


def python3_pickle(protocol, order="C"):
    def write(entries):
        arrays = {"data": np.asarray(entries["data"], order=order)}
        return pickle.dumps({key.encode(): of for key, of in (entries | arrays).items()}, protocol)

    return write


def write_python(folder, parts, label_entry="labels", write=python2_pickle):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, labels) in parts.items():
        extra = {"coarse_labels": [3] * len(labels)} if label_entry == "fine_labels" else {}
        names = ["a.png"] * len(labels)
        entries = {"batch_label": name, label_entry: labels, **extra, "data": rows, "filenames": names}
        (folder / name).write_bytes(write(entries))


def assert_read(data, parts):
    parts = list(parts.values())
    for split, written in ((data.train_set, parts[:-1]), (data.test_set, parts[-1:])):
        images, labels = split.tensors
        assert labels.tolist() == [label for _, of in written for label in of]
        assert images.numpy().tobytes() == b"".join(rows.tobytes() for rows, _ in written)
        assert images.shape[1:] == (3, 32, 32) and images.dtype == torch.uint8 and labels.dtype == torch.int64


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "."])
def test_binary_cifar10_is_read_to_the_pixel(tmp_path, folder):
    write_binary(tmp_path / folder, cifar10_parts())
    data = Cifar10(root=tmp_path)
    assert_read(data, cifar10_parts())
    red, _, blue = data.train_set.tensors[0][0]
    row = cifar10_parts()["data_batch_1"][0][0]
    assert red[0, 1] == row[1] and red[1, 0] == row[32] and blue[0, 0] == row[2048]


@pytest.mark.parametrize("folder", ["cifar-100-binary", "."])
def test_binary_cifar100_is_read_with_its_fine_labels(tmp_path, folder):
    write_binary(tmp_path / folder, cifar100_parts(), coarse=True)
    assert_read(Cifar100(root=tmp_path), cifar100_parts())


WRITERS = [python2_pickle, python3_pickle(2), python3_pickle(4), python3_pickle(4, order="F")]


@pytest.mark.parametrize("write", WRITERS, ids=["python2", "protocol2", "protocol4", "fortran"])
def test_pickled_cifar_is_read_to_the_pixel(tmp_path, write):
    write_python(tmp_path / "cifar-10-batches-py", cifar10_parts(), write=write)
    write_python(tmp_path / "cifar-100-python", cifar100_parts(), "fine_labels", write)
    assert_read(Cifar10(root=tmp_path), cifar10_parts())
    assert_read(Cifar100(root=tmp_path), cifar100_parts())


def test_the_pickle_of_python_2_is_one_that_numpy_reads():
    rows, labels = cifar10_parts()["test_batch"]
    read = pickle.loads(python2_pickle({"data": rows, "labels": labels}), encoding="bytes")
    assert np.array_equal(read[b"data"], rows) and read[b"labels"] == labels


def test_the_binary_release_is_preferred(tmp_path):
    write_binary(tmp_path / "cifar-10-batches-bin", cifar10_parts())
    write_python(tmp_path / "cifar-10-batches-py", {"test_batch": (some_bytes(1, 3072), [0])})
    assert_read(Cifar10(root=tmp_path), cifar10_parts())


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"0", lambda content: b""])
def test_a_binary_file_of_a_broken_record_is_named(tmp_path, change):
    write_binary(tmp_path, cifar10_parts())
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(LinconError, match=rf"data_batch_3\.bin has {path.stat().st_size} bytes.*3073"):
        Cifar10(root=tmp_path)


@pytest.mark.parametrize("form", [write_binary, write_python])
def test_a_cifar_label_of_no_class_is_named(tmp_path, form):
    parts = cifar10_parts()
    parts["data_batch_2"][1][1] = 10
    form(tmp_path, parts)
    with pytest.raises(LinconError, match=r"data_batch_2.* label 10.*0 to 9"):
        Cifar10(root=tmp_path)


@pytest.mark.parametrize("form, ending", [(write_binary, ".bin"), (write_python, "")])
def test_missing_cifar_files_are_named(tmp_path, form, ending):
    form(tmp_path, cifar10_parts())
    for number in (2, 4):
        (tmp_path / f"data_batch_{number}{ending}").unlink()
    with pytest.raises(LinconError, match=f"lacks data_batch_2{ending}, data_batch_4{ending}:"):
        Cifar10(root=tmp_path)


@pytest.mark.parametrize("data", [Cifar10, Cifar100])
def test_cifar_without_a_folder_says_what_it_wants(tmp_path, data):
    for root in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LinconError, match=rf"{data.binary.folder} or {data.python.folder}.*--root FOLDER"):
            data(root=root)


class Evil:
    """What a pickle of this runs when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refuse_pickle(folder, content, match):
    write_python(folder, cifar10_parts())
    (folder / "data_batch_4").write_bytes(content)
    with pytest.raises(LinconError, match=match) as refusal:
        Cifar10(root=folder)
    assert "data_batch_4" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    content = pickle.dumps({b"data": Evil(os.system, f"touch {mark}"), b"labels": [0]}, protocol)
    refuse_pickle(tmp_path, content, rf"asks for {os.system.__module__}\.system")
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # it would have run


@pytest.mark.parametrize(
    "function, arguments",
    [(eval, ("1",)), (getattr, ("", "upper")), (np.load, ("x",)), (np.memmap, ("x",)), (np.uint8, (1,))],
)
def test_a_pickle_may_not_ask_for_other_functions(tmp_path, function, arguments):
    content = pickle.dumps({b"data": Evil(function, *arguments), b"labels": [0]}, 2)
    refuse_pickle(tmp_path, content, r"asks for \S+\.\w+, which no array needs")


def test_a_dotted_name_does_not_reach_through_an_admitted_one(tmp_path):
    dotted = b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93."
    refuse_pickle(tmp_path, dotted, r"asks for numpy\.ndarray\.__init__")


@pytest.mark.parametrize("dtype", ["O", "i8", "f4", "S1"])
def test_arrays_of_anything_but_bytes_are_refused(tmp_path, dtype):
    content = pickle.dumps({b"data": np.zeros((2, 3072), dtype), b"labels": [0, 1]}, 4)
    refuse_pickle(tmp_path, content, rf"dtype '{dtype}8?', not uint8")


def test_an_array_with_a_forged_state_is_refused(tmp_path):
    rows, _ = cifar10_parts()["data_batch_1"]
    genuine = python2_pickle({"labels": [0, 1], "data": rows})
    shape = b"J" + struct.pack("<i", 3072) + b"\x86"
    for forged in (b"J" + struct.pack("<i", 10**9) + b"\x86", b"J" + struct.pack("<i", -1) + b"\x86", b"N\x86"):
        assert shape in genuine
        refuse_pickle(tmp_path, genuine.replace(shape, forged), "damaged|is needed")


@pytest.mark.parametrize(
    "entries",
    [
        {"data": some_bytes(2, 3072)},
        {"labels": [0, 1]},
        {"data": some_bytes(2, 3072), "labels": ["0", "1"]},
        {"data": some_bytes(3, 3072), "labels": [0, 1]},
        {"data": some_bytes(2, 3071), "labels": [0, 1]},
        {"data": some_bytes(0, 3072), "labels": []},
    ],
)
def test_a_pickle_without_fitting_data_and_labels_is_refused(tmp_path, entries):
    refuse_pickle(tmp_path, python2_pickle(entries), "no array 'data' or no list of numbers 'labels'|is needed")


def test_a_damaged_pickle_is_named(tmp_path):
    whole = python2_pickle({"data": some_bytes(2, 3072), "labels": [0, 1]})
    for content in (b"", b"no pickle", whole[:1000], whole[:-1], b"\x80\x02].", b"\x80\x02Vx\n."):
        refuse_pickle(tmp_path, content, "cannot be read")


@pytest.mark.parametrize("data, padding", [(Cifar10, 4), (FashionMNIST, 2)])
def test_crops_shift_up_to_the_padding_and_flip(data, padding):
    image = torch.zeros(500, data.channels, data.size, data.size)
    image[:, :, 10, 6] = 1
    _, _, rows, columns = object.__new__(data)._augmentation()(image).nonzero().T
    mirrored = data.size - 1 - 6
    assert len(rows) == 500 * data.channels
    assert set(rows.tolist()) == set(range(10 - padding, 11 + padding))
    assert set(columns.tolist()) == {c + d for c in (6, mirrored) for d in range(-padding, padding + 1)}


# Folders.


def write_image(path, pixels, format="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format)
    return torch.from_numpy(pixels)


def write_imagenet(root):
    """Two classes; the training and the test image of the second."""
    for wnid in ("n02", "n01"):
        train = write_image(root / f"train/{wnid}/{wnid}_1.JPEG", some_bytes(256, 300, 3, seed=int(wnid[1:])))
        test = write_image(root / f"val/{wnid}/ILSVRC2012_val_1.JPEG", some_bytes(300, 256, 3, seed=7))
        if wnid == "n02":
            kept = train, test
    return kept


def test_image_folders_are_read_to_the_pixel(tmp_path):
    train, test = write_imagenet(tmp_path)
    (tmp_path / "train/n01/.hidden").touch()
    data = ImageNet(root=tmp_path)
    assert data.classes == 2 and data.train_set.labels.tolist() == data.test_set.labels.tolist() == [0, 1]
    images, labels = data.train_set[[1]]
    assert labels.tolist() == [1] and images[0].equal(train[:, 22:278].permute(2, 0, 1))
    images, _ = data.test_set[[1]]
    assert images[0].equal(test[38:262, 16:240].permute(2, 0, 1)) and images.dtype == torch.uint8
    images, _ = next(iter(data.evaluation_loader(train=True)))
    assert images.shape == (2, 3, 224, 224) and images[1].equal(train[16:240, 38:262].permute(2, 0, 1))
    assert data.augment(torch.rand(2, 3, 256, 256)).shape == (2, 3, 224, 224)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_images_of_every_mode_become_rgb_of_the_size(tmp_path, mode):
    image = Image.fromarray(some_bytes(40, 90, 3)).convert(mode)
    image.save(tmp_path / "image", "JPEG" if mode == "CMYK" else "PNG")
    assert folders.decode(tmp_path / "image", 224).shape == (3, 224, 224)


def test_the_shorter_side_is_resized_to_256(tmp_path):
    halves = np.zeros((512, 1024, 3), np.uint8)
    halves[:, 512:] = 255
    write_image(tmp_path / "image", halves)
    decoded = folders.decode(tmp_path / "image", 224)
    assert decoded[:, :, :110].max() == 0 and decoded[:, :, 114:].min() == 255


@pytest.mark.parametrize("workers", [False, True])
def test_a_truncated_or_false_image_is_named(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(folders, "TINY", 0 if workers else 1000)
    write_imagenet(tmp_path)
    path = tmp_path / "val/n02/ILSVRC2012_val_1.JPEG"
    write_image(path, some_bytes(256, 256, 3), "JPEG")
    whole = path.read_bytes()
    data = ImageNet(root=tmp_path)
    assert labels_of(data.val_dataloader()).tolist() == [0, 1]
    for content in (whole[: len(whole) // 2], b"no image", b""):
        path.write_bytes(content)
        with pytest.raises(LinconError, match=rf"^{path} cannot be decoded") as refusal:
            list(data.val_dataloader())
        assert "\n" not in str(refusal.value)
        traceback.clear_frames(refusal.tb)  # workers go now, not when garbage is collected


def test_a_test_class_missing_in_training_is_named(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val/n02").rename(tmp_path / "val/n03")
    with pytest.raises(LinconError, match="val/n03 is a class that the training images do not have"):
        ImageNet(root=tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path):
    for root in (None, tmp_path):
        with pytest.raises(LinconError, match="--root FOLDER with train/<class>/ and val/<class>/"):
            ImageNet(root=root)
    write_imagenet(tmp_path)
    (tmp_path / "train/n01/n01_1.JPEG").unlink()
    with pytest.raises(LinconError, match="train/n01 holds no images"):
        ImageNet(root=tmp_path)


def test_a_limit_of_files_is_stratified(tmp_path):
    for wnid in ("n01", "n02"):
        for number in range(4):
            write_image(tmp_path / f"train/{wnid}/{number}.JPEG", some_bytes(8, 8, 3))
        write_image(tmp_path / f"val/{wnid}/0.JPEG", some_bytes(8, 8, 3))
    data = ImageNet(root=tmp_path, limit=4)
    assert data.train_set.labels.tolist() == [0, 0, 1, 1]
    assert [path.parent.name for path in data.train_set.paths] == ["n01", "n01", "n02", "n02"]


# ObjectNet.


def write_objectnet(root):
    """Three classes, two of them shared with ImageNet, whose order of lines is the reverse of its indices."""
    mappings = root / "mappings"
    mappings.mkdir(parents=True)
    lines = ["tench, Tinca tinca", "barber chair", "analog clock", "folding chair"]
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    write_json(mappings / "pytorch_to_imagenet_2012_id.json", {"0": 3, "1": 2, "2": 1, "3": 0})
    write_json(
        mappings / "objectnet_to_imagenet_1k.json",
        {"Chair": "barber chair; folding chair", "Alarm clock": "analog clock"},
    )
    folders_of = {"chair": "Chair", "alarm_clock": "Alarm clock", "spoon": "Spoon"}
    write_json(mappings / "folder_to_objectnet_label.json", folders_of)
    framed = np.full((260, 260, 3), (255, 0, 0), np.uint8)
    framed[2:-2, 2:-2] = some_bytes(256, 256, 3)
    for folder in folders_of:
        write_image(root / f"images/{folder}/0a1b.png", framed)
    return torch.from_numpy(framed[18:242, 18:242]).permute(2, 0, 1)


def write_json(path, content):
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("folder", [".", "objectnet-1.0"])
def test_objectnet_is_read_without_frame_and_with_its_mapping(tmp_path, folder):
    inner = write_objectnet(tmp_path / folder)
    data = ObjectNet(tmp_path)
    assert data.names == ["Alarm clock", "Chair"] and data.mapping == [[1], [2, 0]]
    images, labels = data[[0, 1]]
    assert labels.tolist() == [0, 1] and images[0].equal(inner) and images[1].equal(inner)
    assert [path.parent.name for path in data.paths] == ["alarm_clock", "chair"]


MAPPINGS = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "pytorch_to_imagenet_2012_id.json",
    "imagenet_to_label_2012_v2",
)


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_missing_mapping_is_named(tmp_path, name):
    write_objectnet(tmp_path)
    (tmp_path / "mappings" / name).unlink()
    with pytest.raises(LinconError, match=f"{name} is missing"):
        ObjectNet(tmp_path)


@pytest.mark.parametrize("name", MAPPINGS[:3])
@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_a_mapping_that_is_no_object_is_named(tmp_path, name, content):
    write_objectnet(tmp_path)
    (tmp_path / "mappings" / name).write_text(content)
    with pytest.raises(LinconError, match=f"{name} is no JSON object"):
        ObjectNet(tmp_path)


@pytest.mark.parametrize(
    "name, content, match",
    [
        (MAPPINGS[1], {"Sofa": "barber chair"}, "'Sofa' is no label"),
        (MAPPINGS[1], {"Chair": "rocking chair"}, "'Chair' -> 'rocking chair' has no line"),
        (MAPPINGS[1], {"Chair": 3}, "'Chair' -> 3 is no text"),
        (MAPPINGS[0], {"chair": ["Chair"]}, r"'chair' -> \['Chair'\] is no text"),
        (MAPPINGS[2], {"0": 3, "1": 3}, "1 -> 3 is also what 0"),
        (MAPPINGS[2], {"1000": 3}, "'1000' -> 3"),
        (MAPPINGS[2], {"0": "n0"}, "'0' -> 'n0'"),
        (
            MAPPINGS[0],
            {"chair": "Chair", "stool": "Chair", "alarm_clock": "Alarm clock"},
            "'stool' -> 'Chair' is also what 'chair'",
        ),
    ],
)
def test_mappings_that_do_not_fit_are_named_with_the_entry(tmp_path, name, content, match):
    write_objectnet(tmp_path)
    write_json(tmp_path / "mappings" / name, content)
    with pytest.raises(LinconError, match=rf"{name}: entry {match}"):
        ObjectNet(tmp_path)


def test_a_missing_folder_of_objectnet_is_named(tmp_path):
    write_objectnet(tmp_path)
    (tmp_path / "images/chair").rename(tmp_path / "images/seat")
    with pytest.raises(LinconError, match="images/chair is missing"):
        ObjectNet(tmp_path)


def test_protocols_differ_in_what_competes():
    mapping = [[5], [7, 8]]
    rows = [
        {5: 3.0, 7: 1.0},  # class 0 wins everywhere
        {999: 9.0, 5: 3.0, 7: 1.0},  # a class that ObjectNet lacks is above
        {8: 3.0, 5: 2.0},  # the other class is above
    ]
    logits = torch.zeros(3, 1000)
    for row, values in zip(logits, rows, strict=True):
        for index, value in values.items():
            row[index] = value
    labels = torch.tensor([0, 0, 0])
    kept = logits.clone()
    assert protocol(logits, labels, mapping, "A").tolist() == [True, False, False]
    assert protocol(logits, labels, mapping, "B").tolist() == [True, True, False]
    assert protocol(logits, labels, mapping, "C").tolist() == [True, True, False]
    assert protocol(logits, torch.tensor([1, 1, 1]), mapping, "A").tolist() == [False, False, True]
    assert logits.equal(kept)


def test_a_restricted_maximum_below_0_counts():
    logits = torch.zeros(1, 1000)
    logits[0, [5, 7, 8]] = torch.tensor([-5.0, -1.0, -2.0])
    correct = [protocol(logits, torch.tensor([1]), [[5], [7, 8]], which).item() for which in "ABC"]
    assert correct == [False, True, True]


def test_an_unknown_protocol_is_refused():
    with pytest.raises(LinconError, match="protocol 'D'; there are: A, B, C"):
        protocol(torch.zeros(1, 1000), torch.tensor([0]), [[1]], "D")


# Shifts.


def smooth(n=8, channels=3, size=32):
    """Images with structure at all scales, in [0, 1]."""
    coarse = torch.nn.functional.interpolate(torch.rand(n, channels, 5, 5), size=size, mode="bicubic").clamp(0, 1)
    return 0.8 * coarse + 0.2 * torch.rand(n, channels, size, size)


def shifted(name, images, strength, seed=0):
    return SHIFTS[name](images, strength, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels, size", [(1, 8), (3, 32)])
@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_grow_with_strength_and_stay_in_range(name, channels, size):
    images = smooth(64, channels, size)
    kept, differences = images.clone(), []
    for strength in range(1, 6):
        changed = shifted(name, images, strength)
        assert changed.shape == images.shape and changed.dtype == images.dtype
        assert changed.min() >= 0 and changed.max() <= 1
        differences.append((changed - images).abs().mean().item())
    assert differences == sorted(set(differences)) and differences[0] > 0.005
    assert images.equal(kept)


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_are_set_by_the_generator_alone(name):
    images = smooth()
    first = shifted(name, images, 3)
    torch.manual_seed(123)
    assert shifted(name, images, 3).equal(first)
    assert shifted(name, images, 3, seed=1).equal(first) == (name in ("blur", "contrast"))


@pytest.mark.parametrize("strength", [0, 6, -1])
@pytest.mark.parametrize("name", SHIFTS)
def test_other_strengths_are_refused(name, strength):
    with pytest.raises(LinconError, match=f"{name} of strength {strength}: choose from 1 to 5"):
        shifted(name, smooth(), strength)


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_refuse_bytes(name):
    with pytest.raises(LinconError, match="uint8"):
        shifted(name, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 1)


def test_shifts_do_what_the_table_says():
    grey = torch.full((4, 1, 64, 64), 0.5)
    assert (shifted("noise", grey, 1) - 0.5).std().item() == pytest.approx(STRENGTHS["noise"][0], rel=0.05)
    two = torch.tensor([0.2, 0.6]).repeat(4).view(1, 1, 2, 4)
    assert shifted("contrast", two, 2).unique().tolist() == pytest.approx([0.3, 0.5])
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    spread = shifted("blur", point, 3)[0, 0]
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    variance = (spread.sum(0) * (torch.arange(33) - 16.0) ** 2).sum().item()
    assert variance == pytest.approx(STRENGTHS["blur"][2] ** 2, rel=0.05)
    point = torch.zeros(8, 1, 33, 33)
    point[:, 0, 16, 30] = 1
    turned = shifted("rotation", point, 5)
    rows = (turned * (torch.arange(33.0) - 16).view(-1, 1)).sum((1, 2, 3)) / turned.sum((1, 2, 3))
    assert rows.abs().tolist() == pytest.approx([14 * 0.5] * 8, abs=0.2) and rows.min() < 0 < rows.max()
