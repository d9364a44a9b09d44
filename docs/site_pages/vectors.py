"""Test vectors of the file format: what another implementation must reproduce.

They are made by lincon when the site is built; the tests compare them with a decoder that shares no
code with it.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import lincon
from lincon.counter import bits, key, mix, row_signs, words
from lincon.generators import Hash, Random, Ring
from lincon.maps.permutation import Permutation
from site_pages.markdown import table

SEEDS = 0, 1, -1, 2024, 2**64
RINGS = Ring(12, 5, seed=7), Ring(12, 5, seed=7, tile=2), Ring(12, 5, seed=7, order="deck")


def fragments() -> Iterator[tuple[str, str]]:
    yield "tables/vectors.md", "\n".join([_keys(), _bits(), _maps()])
    yield "tables/file.md", _file()


def _keys() -> str:
    rows = [(seed, f"`{key(seed):016x}`", f"`{key(seed, 11):016x}`") for seed in SEEDS]
    return table(("seed", "key(seed)", "key(seed, 11)"), rows)


def _bits() -> str:
    counter = torch.tensor([0, 1, 63, 64, 2**32])
    of_key = key(2024, 11)
    rows = zip(
        counter.tolist(),
        (f"`{value % 2**64:016x}`" for value in bits(of_key, counter).tolist()),
        (f"`{value:08x}`" for value in mix(torch.tensor(7), counter).tolist()),
        (f"`{value:08x}`" for value in words(of_key, counter).tolist()),
        row_signs(of_key, counter).tolist(),
        strict=True,
    )
    head = "counter", "bits(k, counter)", "mix(7, counter)", "words(k, counter)", "sign(k, counter)"
    permuted = Permutation(10, key(7, 12))(torch.arange(10)).tolist()
    return (
        f"With k = key(2024, 11):\n\n{table(head, rows)}\n"
        f"Images of 0 to 9 under the permutation of [0, 10) of key(7, 12): `{permuted}`\n"
    )


def _maps() -> str:
    """Column and sign of each row, one based and signed, so that a zero cannot lose its sign."""
    rows = []
    for generator in (*RINGS, Hash(12, 5, seed=7), Random(12, 5, seed=7)):
        matrix = generator.dense()
        column = matrix.abs().argmax(1)
        sign = matrix.gather(1, column[:, None])[:, 0].int()
        rows.append((f"`{generator!r}`", f"`{(sign * (column + 1)).tolist()}`"))
    head = "generator", "column of each row, counted from 1, with the sign"
    return table(head, rows).replace("--:", ":--")


def _file() -> str:
    """A whole file: the bytes, and the weights that it makes."""
    model = nn.Linear(3, 2)
    lincon.constrain(model, "ring", dof=4, seed=7, scale=None)
    with torch.no_grad():
        model.get_parameter("free").copy_(torch.tensor([0.5, -1.0, 2.0, 0.25]))
        model.bias.copy_(torch.tensor([1.0, -1.0]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.safetensors"
        lincon.save(model, path)
        content = path.read_bytes()
    dump = "\n".join(_dumped(content, start) for start in range(0, len(content), 16))
    made = lincon.merge(model).get_parameter("weight").tolist()
    return f"```text\n{dump}\n```\n\nIts weights, (2, 3): `{made}`\n"


def _dumped(content: bytes, start: int) -> str:
    line = content[start : start + 16]
    shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
    return f"{start:04x}  {line.hex(' '):47}  {shown}"
