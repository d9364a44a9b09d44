"""Trainings that are killed, and disks that run full: nothing may be lost.

    python -m benchmarks.interruption --kills 20

The script kills a training by SIGKILL at random moments, so many times over, and compares its
model, byte for byte, with that of a training that was never interrupted. Then it trains onto a disk
that is full at the second checkpoint.
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

from benchmarks.results import keep

COMMAND = (sys.executable, "-m", "lincon.cli", "train", "--scheme", "rpg", "--dof", "0.1")
CHECKPOINT = "phase-0.ckpt"
MODEL = "model.safetensors"


def start(out: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    """Start a training by the command line; ``limit``: bytes that a file may have."""
    prefix = () if limit is None else ("prlimit", f"--fsize={limit}")
    return subprocess.Popen(
        [*prefix, *COMMAND, "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def errors_of(process: subprocess.Popen[str], code: int = 0) -> str:
    """The error stream of a command, which must end by itself, with this code."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return errors


def wait_for_checkpoint(process: subprocess.Popen[str], checkpoint: Path) -> None:
    """Wait until a training has written it, or has ended."""
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)


@dataclass
class Interrupted:
    """A training that was killed: at which moments (seconds after a start), and how it ended."""

    moments: list[float] = field(default_factory=list)
    resumed: int = 0
    """Starts that went on from a checkpoint."""
    same: bool = False
    """Whether its model has the bytes of one that was never interrupted."""


def kill(
    folder: Path, kills: int, epochs: int, longest: float = 8.0, from_checkpoint: bool = False
) -> Interrupted:
    """Train twice, the second time with interruptions, and compare the two models.

    Each interruption comes at most ``longest`` seconds after the start, or, with
    ``from_checkpoint``, after the first checkpoint.
    """
    options = "--epochs", str(epochs)
    errors_of(start(folder / "whole", *options))
    out, draws, result = folder / "killed", random.Random(0), Interrupted()
    while True:
        resume = ("--resume",) if (out / CHECKPOINT).exists() else ()
        result.resumed += bool(resume)
        process = start(out, *options, *resume)
        if len(result.moments) == kills:
            errors_of(process)
            break
        moment = draws.uniform(0, longest)
        if from_checkpoint:
            wait_for_checkpoint(process, out / CHECKPOINT)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            result.moments.append(round(moment, 2))
        else:
            message = f"The training ended before it was killed {kills} times: give more epochs."
            raise AssertionError(message)
    whole, killed = ((folder / run / MODEL).read_bytes() for run in ("whole", "killed"))
    partial_files = list(out.glob(".*"))
    result.same = whole == killed and not partial_files
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
    """Train onto a disk that is full at the second checkpoint, make room and go on.

    Returns the error line of the first training. The first checkpoint must stay whole, and the
    model in the end must be that of a training with room enough.
    """
    options = "--epochs", str(epochs)
    whole = start(folder / "whole", *options)
    wait_for_checkpoint(whole, folder / "whole" / CHECKPOINT)
    size = (folder / "whole" / CHECKPOINT).stat().st_size
    errors_of(whole)
    with disk(folder / "disk", 2 * size - 4096) as small:
        out = small / "out"
        errors = errors_of(start(out, *options), code=2)
        assert (out / CHECKPOINT).stat().st_size >= size, errors
        assert not list(out.glob(".*")), errors
        subprocess.run(["mount", "-o", f"remount,size={16 * size}", str(small)], check=True)
        errors_of(start(out, *options, "--resume"))
        resumed = (out / MODEL).read_bytes()
    assert resumed == (folder / "whole" / MODEL).read_bytes()
    return errors.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument(
        "--longest", type=float, default=8.0, help="Seconds from a start to a kill, at most."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed = kill(Path(folder), options.kills, options.epochs, options.longest)
    with tempfile.TemporaryDirectory() as folder:
        message = fill(Path(folder)).replace(folder, "")
    rows = [
        ("kills by SIGKILL", len(killed.moments)),
        ("starts that went on from a checkpoint", killed.resumed),
        ("same model, byte for byte, as without interruption", "yes" if killed.same else "NO"),
        (
            "full disk: the first checkpoint stays whole, the training ends with the same model",
            "yes",
        ),
        ("full disk: the message", f"`{message}`"),
    ]
    numbers = {"kills": vars(killed), "full": message}
    print(keep("interruption", "Interruptions", ("what", "found"), rows, numbers))


if __name__ == "__main__":
    main()
