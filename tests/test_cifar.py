"""CIFAR, binary and pickled: read to the pixel, or refused by name; nothing in a pickle is run."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from lincon import LinconError
from lincon.tasks.classification.data.cifar import Cifar10, Cifar100
from lincon.tasks.classification.data.idx import FashionMNIST

from .classification_files import (
    assert_read,
    cifar10_parts,
    cifar100_parts,
    python2_pickle,
    python3_pickle,
    some_bytes,
    write_binary,
    write_python,
)


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


@pytest.mark.parametrize(
    "change", [lambda content: content[:-1], lambda content: content + b"0", lambda content: b""]
)
def test_a_binary_file_of_a_broken_record_is_named(tmp_path, change):
    write_binary(tmp_path, cifar10_parts())
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(
        LinconError, match=rf"data_batch_3\.bin has {path.stat().st_size} bytes.*3073"
    ):
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
        with pytest.raises(
            LinconError, match=rf"{data.binary.folder} or {data.python.folder}.*--root FOLDER"
        ):
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
    [
        (eval, ("1",)),
        (getattr, ("", "upper")),
        (np.load, ("x",)),
        (np.memmap, ("x",)),
        (np.uint8, (1,)),
    ],
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
    for forged in (
        b"J" + struct.pack("<i", 10**9) + b"\x86",
        b"J" + struct.pack("<i", -1) + b"\x86",
        b"N\x86",
    ):
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
    refuse_pickle(
        tmp_path,
        python2_pickle(entries),
        "no array 'data' or no list of numbers 'labels'|is needed",
    )


def test_a_damaged_pickle_is_named(tmp_path):
    whole = python2_pickle({"data": some_bytes(2, 3072), "labels": [0, 1]})
    for content in (b"", b"no pickle", whole[:1000], whole[:-1], b"\x80\x02].", b"\x80\x02Vx\n."):
        refuse_pickle(tmp_path, content, "cannot be read")


@pytest.mark.parametrize("place", ["data/cifar-10-batches-bin", "data", "a/b"])
def test_a_release_further_down_is_named(tmp_path, place):
    write_binary(tmp_path / place, cifar10_parts())
    with pytest.raises(LinconError, match=f"It seems to be in {tmp_path / place}: give that"):
        Cifar10(root=tmp_path)


def test_a_release_further_up_is_named(tmp_path):
    write_python(tmp_path, cifar10_parts())
    (tmp_path / "pictures").mkdir()
    for root in (tmp_path / "pictures", tmp_path / "cifar10"):
        with pytest.raises(LinconError, match=f"It seems to be in {tmp_path}: give that"):
            Cifar10(root=root)


def test_an_archive_of_a_release_is_to_be_unpacked(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"\x1f\x8b")
    with pytest.raises(LinconError, match=r"archives to unpack: cifar-10-binary.tar.gz"):
        Cifar10(root=tmp_path)
    with pytest.raises(LinconError, match=r"tar.gz is a file, .*: unpack it, and give the folder"):
        Cifar10(root=archive)


@pytest.mark.parametrize(
    "write, name", [(write_binary, "test_batch.bin"), (write_python, "test_batch")]
)
def test_a_folder_that_is_named_as_a_batch_is_refused(tmp_path, write, name):
    write(tmp_path, cifar10_parts())
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(LinconError, match=f"{name} is a folder, where a file is expected"):
        Cifar10(root=tmp_path)


@pytest.mark.parametrize("write, ending", [(write_binary, ".bin"), (write_python, "")])
@pytest.mark.parametrize(
    "content, said", [(b"<html>", "web page"), (b"\x1f\x8b\x08", "gzip"), (b"\xff", "again")]
)
def test_what_is_in_the_place_of_a_batch_is_named(tmp_path, write, ending, content, said):
    write(tmp_path, cifar10_parts())
    (tmp_path / f"test_batch{ending}").write_bytes(content)
    with pytest.raises(LinconError, match=f"test_batch{ending} .*{said}"):
        Cifar10(root=tmp_path)


@pytest.mark.parametrize("data, padding", [(Cifar10, 4), (FashionMNIST, 2)])
def test_crops_shift_up_to_the_padding_and_flip(data, padding):
    image = torch.zeros(500, data.channels, data.size, data.size)
    image[:, :, 10, 6] = 1
    _, _, rows, columns = object.__new__(data)._augmentation()(image).nonzero().T
    mirrored = data.size - 1 - 6
    assert len(rows) == 500 * data.channels
    assert set(rows.tolist()) == set(range(10 - padding, 11 + padding))
    assert set(columns.tolist()) == {
        c + d for c in (6, mirrored) for d in range(-padding, padding + 1)
    }
