"""Hostile files: a fixed set of mutants of every kind, and by name what earlier ones broke. More: `make fuzz`."""

import gzip
import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

import lincon
from lincon import LinconError
from lincon.tasks.classification.data.cifar import Cifar100
from lincon.tasks.classification.data.idx import FashionMNIST
from lincon.tasks.experiments.data.pictures import open_picture
from lincon.tasks.pose.data import matlab

from . import classification_files, test_indoor_data, test_pose_data
from .hostile import KINDS, memory, run
from .models import convnet
from .resealed import resealed

COUNT = 60


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_loaded_as_they_say_or_refused(kind):
    threads = torch.get_num_threads()
    outcomes = run(kind, range(COUNT))
    torch.set_num_threads(threads)
    assert {
        number: found for number, found in outcomes.items() if found not in ("loaded", "refused")
    } == {}
    assert list(outcomes.values()).count("refused") > COUNT // 8


def saved(folder):
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2)
    lincon.save(model, folder / "model.safetensors")
    return folder / "model.safetensors"


def small(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def constrained_small(generator="ring", **options):
    model = small()
    lincon.constrain(model, generator, dof=10, **options)
    return model


def adapter():
    model = constrained_small(offset=True)
    model.requires_grad_(False)
    model.free.requires_grad_(True)
    return model


def changed(change, *arguments):
    model = constrained_small()
    change(model, *arguments)
    return model


FILES = {
    "a ring": (constrained_small, None),
    "a deflated header": (lambda: constrained_small(offset="seed"), None),
    "a table": (lambda: constrained_small("codebook"), None),
    "a coded mask": (lambda: changed(lincon.prune, 0.5), None),
    "coded integers": (lambda: changed(lincon.quantize, 4), None),
    "an adapter": (adapter, "trained"),
}


@pytest.mark.filterwarnings("ignore::lincon.LinconWarning")  # of names that damage has made
@pytest.mark.parametrize("kind", FILES)
def test_no_byte_of_a_file_may_be_another(kind, tmp_path):
    """One bit of each byte, and every bit of the last of the header, whose code may have some to spare."""
    make, only = FILES[kind]
    path, other = tmp_path / "model", tmp_path / "other"
    lincon.save(make(), path, **({"only": only} if only else {}))
    fresh = small(0 if only else 1)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    places = [(place, place % 8) for place in range(len(content))]
    places += [(place, bit) for place in range(end - 60, end) for bit in range(8)]
    for place, bit in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        other.write_bytes(damaged)
        with pytest.raises(lincon.FileError):
            lincon.load(fresh, other)
    lincon.load(fresh, path)


GROUP = ("constraints", 0, "groups", 0)


def at(header, *keys):
    for key in keys:
        header = header[key]
    return header


CHANGES = {
    "a scale beyond all numbers": (
        lambda h: at(h, *GROUP, "ledger", 0).__setitem__(2, 10**400),
        "is damaged",
    ),
    "a group twice": (
        lambda h: at(h, "constraints", 0, "groups").append(at(h, *GROUP)),
        "'free' occurs twice",
    ),
    "a constraint twice": (
        lambda h: at(h, "constraints").append(at(h, "constraints", 0)),
        "'free' occurs twice",
    ),
    "rows beyond the model": (
        lambda h: (
            at(h, *GROUP, "generator").update(name="kronecker", rows=2**62, options={}),
            at(h, *GROUP).update(ledger=[[["0.weight"], [2**62], 1.0]]),
        ),
        r"'0.weight' is \(4611686018427387904,\) in the file and \(8, 1, 3, 3\) here",
    ),
    "options that are none": (
        lambda h: at(h, *GROUP, "generator").update(options={"tile": [1]}),
        "'ring' cannot be made",
    ),
    "aliases are a text": (lambda h: h.update(aliases="free"), "'free'"),
    "a format below": (lambda h: h.update(format=True), "format is no int"),
    "no constraints": (lambda h: h.pop("constraints"), "there is no 'constraints'"),
    "an owner of none": (lambda h: at(h, "constraints", 0).update(owner=None), "owner is no str"),
    "dof is a text": (lambda h: at(h, *GROUP, "generator").update(dof="9"), "dof is no int"),
    "rows are negative": (
        lambda h: at(h, *GROUP, "ledger", 0)[1].__setitem__(0, -8),
        "no entry of a ledger",
    ),
    "a scale of infinity": (
        lambda h: at(h, *GROUP, "ledger", 0).__setitem__(2, float("inf")),
        "no entry of a ledger",
    ),
    "a part of an entry": (lambda h: at(h, *GROUP, "ledger", 0).pop(), "is damaged"),
    "coded by a text": (lambda h: h.update(coded={"free": "bits"}), r"coded\.free is no dict"),
    "a free vector in a module": (
        lambda h: at(h, *GROUP).update(free="0.free"),
        "no name of a free vector",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_description_that_is_none_is_refused_by_what_is_wrong(tmp_path, name):
    change, match = CHANGES[name]
    resealed(saved(tmp_path), lambda header, tensors: change(header))
    model = convnet()
    before = list(model.state_dict())
    with pytest.raises(lincon.FileError, match=match):
        lincon.load(model, tmp_path / "model.safetensors")
    assert list(model.state_dict()) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    ("format",),
    ("constraints",),
    ("constraints", 0),
    ("constraints", 0, "owner"),
    GROUP,
    *(
        (*GROUP, name)
        for name in ("free", "generator", "fingerprint", "isometric", "ledger", "origin", "steps")
    ),
    *(
        (*GROUP, "generator", name)
        for name in ("name", "version", "rows", "dof", "seed", "options")
    ),
    *((*GROUP, "generator", "options", name) for name in ("tile", "order", "sign")),
    *(
        (*GROUP, "ledger", 0),
        (*GROUP, "ledger", 0, 0),
        (*GROUP, "ledger", 0, 1),
        (*GROUP, "ledger", 0, 2),
    ),
    ("aliases",),
    ("coded",),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("whole"))


@pytest.mark.filterwarnings(
    "ignore::lincon.LinconWarning"
)  # of options that this version does not know
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_in_a_description_is_loaded_or_refused(whole, tmp_path, place, value):
    """With a checksum that fits: a file that somebody made with care."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole.read_bytes())
    resealed(path, lambda header, tensors: at(header, *place[:-1]).__setitem__(place[-1], value))
    model = convnet()
    keys = list(model.state_dict())
    try:
        lincon.load(model, path)
    except LinconError as error:
        assert list(model.state_dict()) == keys and "\n" not in str(error)


@pytest.mark.parametrize("operation", [b"r\xff\xff\xff\x7f", b"p2000000000\n"])
def test_a_pickle_that_remembers_under_a_large_number_takes_no_memory(tmp_path, operation):
    classification_files.write_python(
        tmp_path, classification_files.cifar100_parts(), "fine_labels"
    )
    content = (tmp_path / "train").read_bytes()
    (tmp_path / "train").write_bytes(content[:3] + operation + content[3:])
    with memory():
        classification_files.assert_read(
            Cifar100(root=tmp_path), classification_files.cifar100_parts()
        )


def refused_pickle(tmp_path, content, match):
    classification_files.write_python(
        tmp_path, classification_files.cifar100_parts(), "fine_labels"
    )
    (tmp_path / "train").write_bytes(content)
    begun = time.perf_counter()
    with memory(), pytest.raises(LinconError, match=rf"train cannot be read \({match}") as refusal:
        Cifar100(root=tmp_path)
    assert time.perf_counter() - begun < 10
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("again", [b"2\x86", b"q\x01h\x01\x86"], ids=["doubled", "remembered"])
def test_a_key_of_tuples_within_tuples_is_not_hashed(tmp_path, again):
    refused_pickle(tmp_path, b"\x80\x02})" + again * 60 + b"Ns.", "50|a key is of type tuple")
    refused_pickle(tmp_path, b"\x80\x02}(K\x00N)" + again * 60 + b"Nu.", "50|a key is of type int")
    dtype = b"\x80\x02cnumpy\ndtype\n)" + again * 60 + b"\x85R."
    refused_pickle(tmp_path, dtype, "50|an array has the dtype of a tuple")


def test_one_text_is_not_encoded_again_and_again(tmp_path):
    text = b"X" + struct.pack("<I", 1 << 16) + b"a" * (1 << 16) + b"q\x01"
    once = b"c_codecs\nencode\nh\x01X\x06\0\0\0latin1\x86R"
    refused_pickle(
        tmp_path, b"\x80\x02]" + text + b"a(" + once * 3000 + b"e.", "it encodes one text"
    )


def test_more_dimensions_than_anything_has_are_refused_before_they_are_multiplied(tmp_path):
    large = b"\x8a\xff" + b"\x7f" * 255 + b"q\x01"
    state = b"(K\x01(" + large + b"h\x01" * 100_000 + b"tcnumpy\ndtype\nU\x02u1\x85R\x89U\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R" + state
    content = b"\x80\x02}(U\x04data" + array + b"U\x0bfine_labels]K\x01au."
    classification_files.write_python(
        tmp_path, classification_files.cifar100_parts(), "fine_labels"
    )
    (tmp_path / "train").write_bytes(content)
    begun = time.perf_counter()
    with pytest.raises(LinconError, match=r"train.*more than four dimensions"):
        Cifar100(root=tmp_path)
    path = saved(tmp_path)
    resealed(
        path,
        lambda header, tensors: at(header, *GROUP, "ledger", 0).__setitem__(1, [10**300] * 100_000),
    )
    with pytest.raises(lincon.FileError, match="no entry of a ledger"):
        lincon.load(convnet(), path)
    flags, sizes = struct.pack("<IIII", 6, 8, 6, 0), struct.pack("<100000i", *[2**31 - 1] * 100_000)
    body = (
        flags
        + struct.pack("<II", 5, len(sizes))
        + sizes
        + struct.pack("<II", 1, 0)
        + struct.pack("<II", 9, 0)
    )
    with pytest.raises(ValueError, match="dimensions of 400000 bytes"):
        matlab.check(b"x" * 124 + b"\0\1IM" + struct.pack("<II", 14, len(body)) + body)
    assert time.perf_counter() - begun < 5


def test_a_pickle_that_claims_gigabytes_takes_none(tmp_path):
    classification_files.write_python(
        tmp_path, classification_files.cifar100_parts(), "fine_labels"
    )
    (tmp_path / "train").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"few")
    with memory(), pytest.raises(LinconError, match="train cannot be read"):
        Cifar100(root=tmp_path)


def test_a_refusal_of_a_pickle_is_one_line(tmp_path):
    classification_files.write_python(
        tmp_path, classification_files.cifar100_parts(), "fine_labels"
    )
    (tmp_path / "train").write_bytes(b"\x80\x02P1\n.")
    with pytest.raises(LinconError) as refusal:
        Cifar100(root=tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_png_that_claims_a_gigabyte_takes_none(tmp_path):
    frame = test_indoor_data.put(tmp_path)
    content = bytearray(frame[0].read_bytes())
    place = content.index(b"IDAT")
    content[place - 4] = 0x40
    frame[0].write_bytes(bytes(content))
    with memory():
        assert test_indoor_data.alone(frame)[0].shape == (
            1,
            3,
            16,
            16,
        )  # PIL has all pixels before the chunk is cut


def test_a_picture_of_more_pixels_than_its_bytes_justify_is_refused(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(test_indoor_data.png(np.zeros((4, 4), np.uint8), 8, 0))
    with open_picture(path) as picture:
        assert picture.size == (4, 4)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 9000, 9000)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"9000 x 9000 pixels in \d+ bytes"), open_picture(path):
        pass


# MATLAB files: scipy ends the process, or takes gigabytes, where a size lies.


def a_mat(folder, **variables):
    savemat(folder / "file.mat", variables)
    return folder / "file.mat"


def test_whole_matlab_files_are_read_as_scipy_reads_them(tmp_path):
    struct_of = {
        "text": "words",
        "numbers": np.arange(6.0).reshape(2, 3),
        "inner": {"flag": True, "nothing": []},
    }
    cells = np.array([1.0, "two", np.ones((2, 2), np.uint8)], dtype=object)
    for compress in (False, True):
        savemat(
            tmp_path / "file.mat",
            {"a": struct_of, "c": cells, "z": np.ones(3) * 1j},
            do_compression=compress,
        )
        found = matlab.load(tmp_path / "file.mat", ("a", "c", "z"))
        assert found["a"].text == "words" and found["a"].numbers.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (
            found["a"].inner.flag == 1
            and found["c"][1] == "two"
            and found["z"].tolist() == [1j] * 3
        )


LIES = {
    "more dimensions": (lambda c, at: struct.pack_into("<i", c, at + 32, 1 << 30), "bytes for"),
    "negative dimensions": (lambda c, at: struct.pack_into("<i", c, at + 32, -2), "dimensions"),
    "a longer variable": (
        lambda c, at: struct.pack_into("<I", c, at + 4, 1 << 31),
        "bytes are claimed",
    ),
    "a shorter variable": (
        lambda c, at: struct.pack_into("<I", c, at + 4, 24),
        "cut|claimed|element",
    ),
    "another class": (lambda c, at: c.__setitem__(at + 16, 5), "class 5"),
    "a complex one": (lambda c, at: c.__setitem__(at + 17, 8), "cut"),
    "another type": (lambda c, at: struct.pack_into("<I", c, at + 8, 99), "type 99"),
    "another version": (lambda c, at: c.__setitem__(125, 9), "does not begin as one"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_matlab_file_that_lies_is_refused_before_scipy_sees_it(tmp_path, name, monkeypatch):
    lie, match = LIES[name]
    path = a_mat(tmp_path, joints=np.arange(12.0).reshape(3, 4))
    content = bytearray(path.read_bytes())
    lie(content, 128)
    path.write_bytes(bytes(content))
    monkeypatch.setattr(matlab, "loadmat", None)
    with pytest.raises(LinconError, match=match):
        matlab.load(path, ("joints",))


def test_matlab_arrays_within_arrays_have_a_limit(tmp_path):
    nested = np.ones(1)
    for _ in range(40):
        cell = np.empty(1, object)
        cell[0] = nested
        nested = cell
    with pytest.raises(LinconError, match="more than 32 arrays within one another"):
        matlab.load(a_mat(tmp_path, deep=nested), ("deep",))


def test_what_is_no_array_of_numbers_text_cells_or_structs_is_refused(tmp_path):
    import scipy.sparse

    with pytest.raises(LinconError, match="class 5"):
        matlab.load(a_mat(tmp_path, sparse=scipy.sparse.eye_array(3).tocsc()), ("sparse",))


def test_arrays_of_equal_heads_may_differ_in_what_follows(tmp_path):
    """Their heads are looked up: the second of two equal ones must not be longer than what is there."""
    path = a_mat(
        tmp_path, cells=np.array([np.ones(3), np.ones(3), np.ones(3), None], dtype=object)[:3]
    )
    content = path.read_bytes()
    matlab.check(content)
    for cut in range(8, 120, 8):
        shorter = bytearray(content[:-cut])
        struct.pack_into("<I", shorter, 132, len(shorter) - 136)
        with pytest.raises(ValueError):
            matlab.check(bytes(shorter))


def test_structs_without_a_field_are_not_made_by_the_million(tmp_path):
    flags, shape = struct.pack("<4I", 6, 8, 2, 0), struct.pack("<2I2i", 5, 8, 30_000_000, 1)
    no_name, width, no_fields = (
        struct.pack("<2I", 1, 0),
        struct.pack("<2HI", 5, 4, 32),
        struct.pack("<2I", 1, 0),
    )
    inside = flags + shape + no_name + width + no_fields
    path = tmp_path / "file.mat"
    path.write_bytes(b"x" * 124 + b"\0\1IM" + struct.pack("<2I", 14, len(inside)) + inside)
    with pytest.raises(LinconError, match="30000000 structs without a field"):
        matlab.load(path, ("one",))


def test_a_compressed_variable_has_a_limit(tmp_path):
    savemat(tmp_path / "file.mat", {"zeros": np.zeros(1 << 21)}, do_compression=True)
    with pytest.raises(LinconError, match="is cut, or holds more than"):
        matlab.load(tmp_path / "file.mat", ("zeros",))


def test_an_idx_file_is_inflated_as_far_as_its_header_says(tmp_path):
    classification_files.write_fashion(tmp_path, compress=True)
    path = next(tmp_path.glob("train-images*"))
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole + bytes(1 << 28)))
    with (
        memory(),
        pytest.raises(LinconError, match=r"has 4721 bytes or more where its header promises 4720"),
    ):
        FashionMNIST(root=tmp_path)
    path.write_bytes(gzip.compress(whole[:4] + b"\xff" * 12 + whole[16:]))
    with memory(), pytest.raises(LinconError, match="where its header promises"):
        FashionMNIST(root=tmp_path)


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_header_are_checked_without_an_error_of_another_kind(content):
    try:
        matlab.check(b"x" * 124 + b"\0\1IM" + content)
    except Exception as error:
        assert isinstance(error, ValueError) or type(error).__module__ == "zlib"


def test_mpii_is_read_through_the_check(tmp_path):
    folder = test_pose_data.write_mpii(tmp_path, test_pose_data.pictures_of(12))
    path = next(folder.glob("*.mat"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LinconError, match="cannot be read as a MATLAB 5 file"):
        test_pose_data.everybody(folder)
