"""Hostile files: whole ones, mutated by the thousand. Each is loaded as what it says, or refused by lincon's own error.

    python -m tests.hostile --count 10000

mutates files of every kind so many times, in processes of their own, and writes what came of it to
`benchmarks/results`. Mutant ``number`` of a kind is the same wherever it is made. A mutant fails if reading it raises
anything but a LinconError, ends the process, takes longer than `LIMIT`, wants more memory than `MEMORY`, or if what is
read differs from what the file says: for a lincon file, which has a checksum, from what was saved.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lincon
from lincon import LinconError
from lincon.files.header import pack, seal, unpack
from lincon.tasks.classification.data import idx
from lincon.tasks.classification.data.cifar import Cifar10, Cifar100
from lincon.tasks.classification.data.idx import FashionMNIST
from lincon.tasks.indoor.data.stanford import Frame
from lincon.tasks.pose.data import matlab, mpii

from . import classification_files, test_indoor_data, test_pose_data
from .models import convnet

LIMIT = 10.0
"""Seconds that reading a mutant may take (of a few milliseconds for a whole one), on a machine that does other work."""

MEMORY = 256 << 20
"""Bytes of address space that reading a mutant may take: the seeds have at most 100 kB, and torch's threads some MB."""

EXTREMES = (
    0,
    1,
    -1,
    2,
    127,
    255,
    256,
    65_535,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
)


# Mutations of bytes.


def mutate(content: bytes, draws: random.Random) -> bytes:
    """One to three changes of bytes."""
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        content = draws.choice(MUTATIONS)(content, draws)
    return content


def _span(content: bytes, draws: random.Random, most: int = 512) -> tuple[int, int]:
    start = draws.randrange(len(content) + 1)
    if draws.random() < 0.5:  # headers are at the front
        start = min(start, draws.randrange(200))
    return start, min(len(content), start + draws.randrange(1, most))


def _flip(content: bytes, draws: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draws.randrange(1, 9)):
        low, high = _span(content, draws)
        if low < high:
            changed[low] ^= 1 << draws.randrange(8)
    return bytes(changed)


def _cut(content: bytes, draws: random.Random) -> bytes:
    return content[: draws.randrange(len(content) + 1)]


def _extend(content: bytes, draws: random.Random) -> bytes:
    return content + draws.randbytes(draws.choice((1, 4, 100, 5000)))


def _overwrite(content: bytes, draws: random.Random) -> bytes:
    low, high = _span(content, draws)
    fill = draws.choice((b"\0", b"\xff", None))
    return (
        content[:low]
        + (draws.randbytes(high - low) if fill is None else fill * (high - low))
        + content[high:]
    )


def _delete(content: bytes, draws: random.Random) -> bytes:
    low, high = _span(content, draws)
    return content[:low] + content[high:]


def _double(content: bytes, draws: random.Random) -> bytes:
    low, high = _span(content, draws)
    return content[:high] + content[low:high] + content[high:]


def _swap(content: bytes, draws: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_span(content, draws), _span(content, draws)))
    if b > c:
        return _flip(content, draws)
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _number(content: bytes, draws: random.Random) -> bytes:
    size, low = draws.choice((1, 2, 4, 8)), _span(content, draws)[0]
    value = draws.choice(EXTREMES) % (1 << 8 * size)
    return (
        content[:low]
        + value.to_bytes(size, draws.choice(("little", "big")))
        + content[low + size :]
    )


def _float(content: bytes, draws: random.Random) -> bytes:
    low = _span(content, draws)[0] // 4 * 4
    value = draws.choice((float("nan"), float("inf"), -float("inf"), 3e38, 1e-45))
    return content[:low] + struct.pack("<f", value) + content[low + 4 :]


MUTATIONS = (_flip, _cut, _extend, _overwrite, _delete, _double, _swap, _number, _float)


# Mutations of what JSON says.


def mutate_json(value: Any, draws: random.Random) -> Any:
    """The same with one value changed, removed, or moved under another name."""
    if not isinstance(value, dict | list) or not value or draws.random() < 0.1:
        return _other(value, draws)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, changed = draws.choice(keys), value.copy()
    action = draws.random()
    if action < 0.08:
        del changed[key]
    elif action < 0.14 and isinstance(changed, dict):
        changed[draws.choice(("", "free", "rows", "sha256", str(key) + "."))] = changed.pop(key)
    elif action < 0.18:
        changed[key] = value[draws.choice(keys)]
    else:
        changed[key] = mutate_json(value[key], draws)
    return changed


def _other(value: Any, draws: random.Random) -> Any:
    if isinstance(value, int) and draws.random() < 0.5:
        return value + draws.choice((-1, 1, 2, -value - 1, value))
    return draws.choice(
        (
            *EXTREMES,
            -(1 << 40),
            0.5,
            float("nan"),
            1e300,
            None,
            True,
            "",
            "ring",
            "../x",
            [],
            {},
            [[]],
        )
    )


# Kinds of files.


class Kind(ABC):
    """Files of one kind: how whole ones are written, mutated and read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = self.write()

    @abstractmethod
    def write(self) -> list[Path]:
        """Whole files in the folder; the mutant takes the place of one of them."""

    @abstractmethod
    def read(self, seed: int) -> Any:
        """What the files hold."""

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        """What is wrong with what was read, or None."""
        return None

    def mutant(self, content: bytes, draws: random.Random) -> bytes:
        return mutate(content, draws)

    def run(self, number: int) -> str:
        """Make and read one mutant: "loaded", "refused", or what is wrong."""
        draws = random.Random(f"{type(self).__name__}, {number}")
        seed = number % len(self.seeds)
        path = self.seeds[seed]
        content = path.read_bytes()
        mutant = self.mutant(content, draws)
        whole = self.whole(seed)
        path.write_bytes(mutant)
        begun = time.perf_counter()
        try:
            with memory():
                found = self.read(seed)
            outcome = self.check(seed, found, whole, mutant) or "loaded"
        except LinconError as error:
            lines = str(error).count("\n")
            outcome = (
                "refused"
                if not lines and not _of_memory(str(error))
                else f"refused in other words: {error}"
            )
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        finally:
            path.write_bytes(content)
        if (took := time.perf_counter() - begun) > LIMIT:
            outcome = f"took {took:.0f} s ({outcome})"
        return outcome

    def whole(self, seed: int) -> Any:
        if not hasattr(self, "_whole"):
            self._whole = [self.read(number) for number in range(len(self.seeds))]
        return self._whole[seed]


@contextlib.contextmanager
def memory() -> Iterator[None]:
    """Let this process have `MEMORY` more than it has: what asks for more gets a MemoryError, or torch's own error."""
    with open("/proc/self/status") as file:
        here = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmSize"))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _of_memory(message: str) -> bool:
    """Whether a refusal came only when there was no memory left."""
    return any(
        word in message
        for word in ("DefaultCPUAllocator", "bad_alloc", "Unable to allocate", "MemoryError")
    )


class Lincon(Kind):
    """Files of `lincon.save`: of most generators, with offset, pruned, quantised, coded."""

    VARIANTS: tuple[dict[str, Any], ...] = (
        {"generator": "ring", "dof": 0.3},
        {"generator": "ring", "dof": 0.3, "offset": True},
        {"generator": "ring", "dof": 0.3, "offset": "seed"},
        {"generator": "hash", "dof": 0.1, "scope": "tensor"},
        {"generator": "codebook", "dof": 16},
        {"generator": "kronecker", "dof": 200},
        {"generator": "dense", "dof": 20},
        {"generator": "identity"},
    )
    SEALED = 0.5
    """Share of mutants whose checksum is made anew: what lies behind it is reached by these alone."""

    def write(self) -> list[Path]:
        paths: list[Path] = []
        for number, options in enumerate(self.VARIANTS):
            for after in (
                None,
                lincon.quantize,
                lambda model: lincon.prune(model, 0.5),
                _pruned_and_quantised,
                _frozen,
            ):
                model = convnet()
                lincon.constrain(model, seed=number, **options)
                if after is not None:
                    after(model)
                paths.append(self.folder / f"{len(paths)}.safetensors")
                lincon.save(model, paths[-1], only="trained" if after is _frozen else None)
        return paths

    def mutant(self, content: bytes, draws: random.Random) -> bytes:
        if draws.random() < 0.5:
            return mutate(content, draws)
        size = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        if draws.random() < 0.4:
            said = mutate_json(_said(header), draws)
            header["__metadata__"]["lincon"] = (
                _sealed(said, header, data) if draws.random() < self.SEALED else said
            )
            if not isinstance(header["__metadata__"]["lincon"], str):
                header["__metadata__"]["lincon"] = json.dumps(said)
        elif draws.random() < 0.5:
            data = mutate(data, draws)
            with contextlib.suppress(Exception):
                said = _said(header)
                header["__metadata__"]["lincon"] = _sealed(said, header, data)
        else:
            header = mutate_json(header, draws)
        text = json.dumps(header)
        if draws.random() < 0.05:  # one key twice
            text = text[:-1] + "," + text[1:]
        return len(text.encode()).to_bytes(8, "little") + text.encode() + data

    def read(self, seed: int) -> Any:
        model = convnet()
        lincon.load(model, self.seeds[seed])
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return state, model.eval()(torch.ones(1, 1, 8, 8)).detach()

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        """The model of the seed under its checksum; under another that fits, whatever it says."""
        (state, output), (expected, expected_output) = found, whole
        if seal_of(mutant) != seal_of(self._contents[seed]):
            return None
        same = state.keys() == expected.keys() and all(
            _same(state[name], expected[name]) for name in state
        )
        return (
            None
            if same and _same(output, expected_output)
            else "loaded with other values under the old checksum"
        )

    def run(self, number: int) -> str:
        if not hasattr(self, "_contents"):
            self._contents = [path.read_bytes() for path in self.seeds]
        return super().run(number)


def seal_of(content: bytes) -> str:
    """The checksum in a lincon file."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(_said(header)["sha256"])


def _said(header: dict[str, Any]) -> Any:
    return json.loads(unpack(Path(), header["__metadata__"]["lincon"]))


def _frozen(model: nn.Module) -> None:
    model.eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("free"))


def _pruned_and_quantised(model: nn.Module) -> None:
    moved = any(
        group.has_offset for constraint in lincon.constraints(model) for group in constraint.groups
    )
    lincon.prune(model, 0.3, level="free" if moved else "weights")
    lincon.quantize(model, 4)


def _sealed(said: Any, header: dict[str, Any], data: bytes) -> str:
    """The description with a checksum that fits; as it is, where the tensors cannot be made out."""
    dtypes = {
        "F32": torch.float32,
        "I8": torch.int8,
        "U8": torch.uint8,
        "I64": torch.int64,
        "I32": torch.int32,
    }
    dtypes |= {"BOOL": torch.bool, "F64": torch.float64, "I16": torch.int16}
    try:
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                low, high = entry["data_offsets"]
                part = torch.frombuffer(bytearray(data[low:high]), dtype=torch.uint8).view(
                    dtypes[entry["dtype"]]
                )
                tensors[name] = part.view(entry["shape"])
        return pack(seal(said, tensors))
    except Exception:
        return json.dumps(said)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return (
        a.contiguous()
        .reshape(-1)
        .view(torch.uint8)
        .equal(b.contiguous().reshape(-1).view(torch.uint8))
    )


class Labelled(Kind):
    """Images with labels: of the right shape and type, labels in range, and as an independent reading has them."""

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        for part in (found.train_set, found.test_set):
            images, labels = part.tensors
            if images.dtype != torch.uint8 or images.dim() != 4 or len(images) != len(labels):
                return f"loaded as {images.dtype} {tuple(images.shape)} with {len(labels)} labels"
            if (
                labels.dtype != torch.int64
                or not 0 <= int(labels.min()) <= int(labels.max()) < found.classes
            ):
                return "loaded with labels of no class"
        return None


class Idx(Labelled):
    def write(self) -> list[Path]:
        classification_files.write_fashion(self.folder, compress=False)
        return [self.folder / name for name in idx.FILES]

    def read(self, seed: int) -> Any:
        return FashionMNIST(root=self.folder)

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        """An IDX file says little: its numbers are the bytes behind the header."""
        part = (found.train_set, found.train_set, found.test_set, found.test_set)[seed].tensors[
            seed % 2
        ]
        plain = np.frombuffer(mutant, np.uint8)[16 if seed % 2 == 0 else 8 :]
        same = np.array_equal(part.numpy().reshape(-1), plain)
        return (
            super().check(seed, found, whole, mutant)
            if same
            else "loaded with other numbers than its bytes"
        )


class IdxGz(Labelled):
    def write(self) -> list[Path]:
        classification_files.write_fashion(self.folder, compress=True)
        return [self.folder / f"{name}.gz" for name in idx.FILES]

    def read(self, seed: int) -> Any:
        return FashionMNIST(root=self.folder)


class CifarBinary(Labelled):
    def write(self) -> list[Path]:
        classification_files.write_binary(self.folder, classification_files.cifar10_parts())
        return sorted(self.folder.glob("*.bin"))

    def read(self, seed: int) -> Any:
        return Cifar10(root=self.folder)

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        """Each record is a label and 3,072 bytes."""
        records = np.frombuffer(mutant, np.uint8).reshape(-1, 3073)
        part, start = (found.test_set, 0) if seed == 5 else (found.train_set, 2 * seed)
        images, labels = (tensor[start : start + len(records)].numpy() for tensor in part.tensors)
        same = np.array_equal(images.reshape(-1, 3072), records[:, 1:]) and np.array_equal(
            labels, records[:, 0]
        )
        return (
            super().check(seed, found, whole, mutant)
            if same
            else "loaded with other numbers than its bytes"
        )


class CifarPickle(Labelled):
    def write(self) -> list[Path]:
        pickles = {
            "train": classification_files.python2_pickle,
            "test": classification_files.python3_pickle(4),
        }
        for of, write in pickles.items():
            parts = {
                name: part
                for name, part in classification_files.cifar100_parts().items()
                if name == of
            }
            classification_files.write_python(self.folder, parts, "fine_labels", write)
        return [self.folder / "train", self.folder / "test"]

    def read(self, seed: int) -> Any:
        return Cifar100(root=self.folder)


class Mat(Kind):
    """The annotations of MPII: people with finite places, sizes and joints."""

    def write(self) -> list[Path]:
        test_pose_data.write_mpii(self.folder, test_pose_data.pictures_of(12))
        test_pose_data.write_detections(self.folder, [(1, 1), (3, 1)])
        return [self.folder / mpii.ANNOTATION, self.folder / "detections.mat"]

    def read(self, seed: int) -> Any:
        return mpii.read(self.folder)

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        for person in (*found[0], *found[1]):
            numbers = (*person.centre, person.side, *person.joints[person.known].reshape(-1))
            if not np.isfinite(np.array(numbers, float)).all() or person.side <= 0:
                return f"loaded with {numbers}"
        return None


class MatOfLsp(Kind):
    """The joints of LSP: (3, 14, people)."""

    def write(self) -> list[Path]:
        from scipy.io import savemat

        joints = np.random.default_rng(0).uniform(10, 90, (3, 14, 2000))
        joints[2] = 0
        savemat(self.folder / "joints.mat", {"joints": joints[:, :, :20]}, do_compression=True)
        return [self.folder / "joints.mat"]

    def read(self, seed: int) -> Any:
        return matlab.load(self.folder / "joints.mat", ("joints",))


class Png(Kind):
    """The three pictures of an indoor view: bytes, metres and unit vectors of the right shape."""

    def write(self) -> list[Path]:
        frame = test_indoor_data.put(self.folder)
        self.frame = Frame(*(Path(path) for path in frame))
        return [Path(path) for path in self.frame]

    def read(self, seed: int) -> Any:
        return test_indoor_data.alone(self.frame)

    def check(self, seed: int, found: Any, whole: Any, mutant: bytes) -> str | None:
        for part, expected in zip(found, whole, strict=True):
            if (
                part.shape != expected.shape
                or part.dtype != expected.dtype
                or bool(part.isinf().any())
            ):
                return f"loaded as {part.dtype} {tuple(part.shape)}"
        return None


KINDS = {
    kind.__name__: kind
    for kind in (Lincon, Idx, IdxGz, CifarBinary, CifarPickle, Mat, MatOfLsp, Png)
}


def run(kind: str, numbers: range) -> dict[int, str]:
    """The outcome of each mutant, in this process."""
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        files = KINDS[kind](Path(folder))
        for seed in range(len(files.seeds)):
            files.whole(seed)
        return {number: files.run(number) for number in numbers}


# The long run.


def survey(kind: str, count: int, share: int = 500) -> tuple[Counter[str], dict[int, str]]:
    """Outcomes of ``count`` mutants and those that are wrong, each ``share`` in a process of its own."""
    outcomes: Counter[str] = Counter()
    wrong: dict[int, str] = {}
    parts = [range(start, min(start + share, count)) for start in range(0, count, share)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda numbers: _in_a_process(kind, numbers), parts))
    for number, outcome in (pair for part in found for pair in part.items()):
        outcomes[outcome if outcome in ("loaded", "refused") else "wrong"] += 1
        if outcome not in ("loaded", "refused"):
            wrong[number] = outcome
    return outcomes, wrong


def _in_a_process(kind: str, numbers: range) -> dict[int, str]:
    """As `run`; where the process is ended by a mutant, each has one of its own."""
    code = (
        f"import json; from tests.hostile import run; print(json.dumps(run({kind!r}, {numbers!r})))"
    )
    limit = LIMIT * 6 + len(numbers)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=limit
        )
        if done.returncode == 0:
            return {int(number): outcome for number, outcome in json.loads(done.stdout).items()}
        ended = f"the process ended with {done.returncode}: {done.stderr[-200:]}"
    except subprocess.TimeoutExpired:
        ended = "hangs"
    if len(numbers) == 1:
        return {numbers[0]: ended}
    half = len(numbers) // 2
    return _in_a_process(kind, numbers[:half]) | _in_a_process(kind, numbers[half:])


def main() -> None:
    from benchmarks.results import keep

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="Mutants of each kind.")
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    rows, numbers = [], {}
    for kind in given.kinds.split(","):
        begun = time.perf_counter()
        outcomes, wrong = survey(kind, given.count)
        numbers[kind] = {
            "outcomes": dict(outcomes),
            "wrong": wrong,
            "seconds": time.perf_counter() - begun,
        }
        rows.append((kind, *(f"{outcomes[name]:,}" for name in ("loaded", "refused", "wrong"))))
        print(
            *rows[-1],
            *(f"\n  {number}: {outcome}" for number, outcome in [*wrong.items()][:20]),
            flush=True,
        )
    print(
        keep(
            "hostile-files",
            "Mutated files",
            ("kind", "loaded as they say", "refused", "wrong"),
            rows,
            numbers,
        )
    )
    if any(found["wrong"] for found in numbers.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
