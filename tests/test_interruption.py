"""Nothing is lost: killed trainings, full disks, files written whole. Twenty kills: `benchmarks/interruption.py`."""

import os
import random
import signal
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from safetensors.torch import load_file

import lincon
from benchmarks import interruption
from lincon.files.atomic import remove_partial

from .models import convnet

WRITER = """
import sys
from pathlib import Path
from lincon.files.atomic import atomic_write
for byte in (number % 256 for number in range(10**9)):
    with atomic_write(Path(sys.argv[1])) as part:
        part.write_bytes(bytes([byte]) * 3_000_000)
"""


def ring():
    model = convnet()
    lincon.constrain(model, "ring", dof=10)
    return model


@pytest.mark.long
def test_a_killed_training_ends_with_the_bytes_of_one_that_was_not(tmp_path):
    found = interruption.kill(tmp_path, kills=1, epochs=12, longest=0.5, from_checkpoint=True)
    assert found.same and found.resumed == len(found.moments) == 1


@pytest.mark.long
def test_a_full_disk_leaves_the_checkpoint_before_whole_and_says_so(tmp_path):
    try:
        said = interruption.fill(tmp_path)
    except interruption.NoDisk:  # a limit of the size of files does what a full disk does
        limited(tmp_path / "limited")
    else:
        assert "phase-0.ckpt could not be written (No space left on device)" in said


def limited(tmp_path):
    said = interruption.errors_of(interruption.start(tmp_path, "--epochs", "3", limit=4096), code=2)
    assert "could not be written (File too large)" in said and "Traceback" not in said
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*"))


def test_save_on_a_full_disk_leaves_the_file_before_whole(tmp_path):
    small, large = ring(), convnet()
    lincon.constrain(large, "identity")
    lincon.save(small, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(
            lincon.FileError, match=r"model.safetensors could not be written .*as it was"
        ):
            lincon.save(large, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_write_that_is_killed_leaves_one_whole_file_and_what_can_be_removed(tmp_path):
    file, draws = tmp_path / "file", random.Random(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, file])
        while not file.exists():
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = file.read_bytes()
        assert len(content) == 3_000_000 and len(set(content)) == 1
    (tmp_path / f".file.{uuid4().hex}").touch()  # as a kill in the middle leaves it
    (tmp_path / ".mine.safetensors").touch()
    remove_partial(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mine.safetensors", "file"]


def test_the_file_is_whole_as_soon_as_it_has_its_name(tmp_path, monkeypatch):
    """Renamed after it was synced, from a name beside it."""
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append("synced"))
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda old, new: (seen.append((old.parent, new.name)), replace(old, new))
    )
    lincon.save(ring(), tmp_path / "model.safetensors")
    assert seen == ["synced", (tmp_path, "model.safetensors")]
    assert "free" in load_file(tmp_path / "model.safetensors")
