"""Trainings that are killed, and disks that are full: nothing may be lost.

    python -m benchmarks.interruption --kills 20

kills a training by SIGKILL at random moments, so many times over, and compares the model that it ends with, byte for
byte, with that of one that was never interrupted; and trains onto a disk that is full at the second checkpoint.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.keeping import keep

COMMAND = (sys.executable, "-m", "lincon.cli", "train", "--scheme", "rpg", "--dof", "0.1")
CHECKPOINT = "phase-0.ckpt"


def start(out: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    """A training by the command line; ``limit``: bytes that a file may have."""
    prefix = () if limit is None else ("prlimit", f"--fsize={limit}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*prefix, *COMMAND, "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a command said on the error stream; it must end by itself, with this code."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


@dataclass
class Killed:
    """A training that was killed: how often, when (seconds after a start), and the epochs that were done at the end."""

    moments: list[float] = field(default_factory=list)
    resumed: int = 0
    same: bool = False


def kill(
    folder: Path,
    kills: int,
    epochs: int,
    seed: int = 0,
    longest: float = 8.0,
    from_checkpoint: bool = False,
) -> Killed:
    """Train twice, the second time with interruptions; whether the two models are the same bytes.

    Each comes at most ``longest`` seconds after the start, or, with ``from_checkpoint``, after the first checkpoint.
    """
    options = "--epochs", str(epochs)
    ended(start(folder / "whole", *options))
    out, draws, result = folder / "killed", random.Random(seed), Killed()
    while True:
        go_on = ("--resume",) if (out / CHECKPOINT).exists() else ()
        result.resumed += bool(go_on)
        process = start(out, *options, *go_on)
        if len(result.moments) == kills:
            ended(process)
            break
        moment = draws.uniform(0, longest)
        while from_checkpoint and not (out / CHECKPOINT).exists() and process.poll() is None:
            time.sleep(0.01)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            result.moments.append(round(moment, 2))
        else:
            raise AssertionError(
                f"The training ended before it was killed {kills} times: give more epochs."
            )
    models = [(folder / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    result.same = models[0] == models[1] and not list(out.glob(".*"))
    return result


class NoDisk(Exception):
    """This process may not mount a disk."""


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A small disk of its own. Raises NoDisk where this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        raise NoDisk
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, epochs: int = 4) -> str:
    """Train onto a disk that is full at the second checkpoint, then make room and go on; what was said.

    The first checkpoint must be whole, and the model in the end that of a training with room enough.
    """
    options = "--epochs", str(epochs)
    whole = start(folder / "whole", *options)
    while not (folder / "whole" / CHECKPOINT).exists() and whole.poll() is None:
        time.sleep(0.01)
    size = (folder / "whole" / CHECKPOINT).stat().st_size
    ended(whole)
    with disk(folder / "disk", 2 * size - 4096) as small:
        said = ended(start(small / "out", *options), code=2)
        left = (small / "out" / CHECKPOINT).stat().st_size
        assert left >= size and not list((small / "out").glob(".*")), said
        subprocess.run(["mount", "-o", f"remount,size={16 * size}", str(small)], check=True)
        ended(start(small / "out", *options, "--resume"))
        found = (small / "out" / "model.safetensors").read_bytes()
    assert found == (folder / "whole" / "model.safetensors").read_bytes()
    return said.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument(
        "--longest", type=float, default=8.0, help="Seconds from a start to a kill, at most."
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed = kill(Path(folder), given.kills, given.epochs, longest=given.longest)
    with tempfile.TemporaryDirectory() as folder:
        said = fill(Path(folder)).replace(folder, "")
    rows = [
        ("kills by SIGKILL", len(killed.moments)),
        ("starts that went on from a checkpoint", killed.resumed),
        ("same model, byte for byte, as without interruption", "yes" if killed.same else "NO"),
        (
            "full disk: the checkpoint before is whole, the training goes on to the same model",
            "yes",
        ),
        ("full disk: what is said", f"`{said}`"),
    ]
    print(
        keep(
            "interruption",
            "Interruptions",
            ("what", "found"),
            rows,
            {"kills": vars(killed), "full": said},
        )
    )


if __name__ == "__main__":
    main()
