"""Small files in the official formats of the data sets of images, for tests."""

import gzip
import json
import pickle
import struct

import numpy as np
import torch
from PIL import Image

from lincon.tasks.classification.data import idx


def some_bytes(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def labels_of(loader):
    return torch.cat([labels for _, labels in loader])


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder, compress, train=6, test=4):
    """The four files; the arrays written, in the order of `idx.FILES`."""
    arrays = [
        some_bytes(train, 28, 28),
        some_bytes(train, seed=1) % 10,
        some_bytes(test, 28, 28, seed=2),
    ]
    arrays.append(some_bytes(test, seed=3) % 10)
    for name, array in zip(idx.FILES, arrays, strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return [torch.from_numpy(array) for array in arrays]


def cifar10_parts():
    """Name -> (rows of 3,072 bytes, labels), two images a file."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {name: (some_bytes(2, 3072, seed=i), [i, 9 - i]) for i, name in enumerate(names)}


def cifar100_parts():
    return {
        name: (some_bytes(2, 3072, seed=i), [99, i]) for i, name in enumerate(("train", "test"))
    }


def write_binary(folder, parts, coarse=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, labels) in parts.items():
        prefix = [bytes([7, label]) if coarse else bytes([label]) for label in labels]
        records = zip(prefix, rows, strict=True)
        (folder / f"{name}.bin").write_bytes(
            b"".join(before + row.tobytes() for before, row in records)
        )


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
            return (
                b"]("
                + b"".join(text(one) if isinstance(one, str) else number(one) for one in of)
                + b"e"
            )
        made = (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text("b") + b"\x87R"
        )
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
        entries = {
            "batch_label": name,
            label_entry: labels,
            **extra,
            "data": rows,
            "filenames": names,
        }
        (folder / name).write_bytes(write(entries))


def assert_read(data, parts):
    parts = list(parts.values())
    for split, written in ((data.train_set, parts[:-1]), (data.test_set, parts[-1:])):
        images, labels = split.tensors
        assert labels.tolist() == [label for _, of in written for label in of]
        assert images.numpy().tobytes() == b"".join(rows.tobytes() for rows, _ in written)
        assert (
            images.shape[1:] == (3, 32, 32)
            and images.dtype == torch.uint8
            and labels.dtype == torch.int64
        )


def write_image(path, pixels, format="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format)
    return torch.from_numpy(pixels)


def write_imagenet(root):
    """Two classes; the training and the test image of the second."""
    for wnid in ("n02", "n01"):
        train = write_image(
            root / f"train/{wnid}/{wnid}_1.JPEG", some_bytes(256, 300, 3, seed=int(wnid[1:]))
        )
        test = write_image(
            root / f"val/{wnid}/ILSVRC2012_val_1.JPEG", some_bytes(300, 256, 3, seed=7)
        )
        if wnid == "n02":
            kept = train, test
    return kept


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
