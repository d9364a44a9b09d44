"""Where a model is saved to: links, devices, folders and files of others, two writers, and a kill on the way."""

import os
import random
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

import lincon
from lincon.files import contents

from .models import convnet

NOBODY = 65534


def ring(seed=0):
    model = convnet()
    lincon.constrain(model, "ring", dof=3000, seed=seed)
    return model


def seed_of(path):
    """Loads a file whole, and says whose it is."""
    model = convnet()
    lincon.load(model, path)
    (constraint,) = lincon.constraints(model)
    return constraint.groups[0].generator.seed


def save_often(path, seed, times):
    model = ring(seed)
    for _ in range(times):
        lincon.save(model, path)


def saver(path, seed, times):
    """A process that saves; as a fork it need not import torch again."""
    process = get_context("fork").Process(target=save_often, args=(path, seed, times))
    process.start()
    return process


def test_two_processes_that_save_to_one_name_leave_the_whole_file_of_one(tmp_path):
    path = tmp_path / "model.safetensors"
    lincon.save(ring(1), path)
    writers = [saver(path, seed, 20) for seed in (1, 2)]
    while any(writer.is_alive() for writer in writers):
        assert seed_of(path) in (1, 2)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path, other = tmp_path / "model.safetensors", tmp_path / "other"
    lincon.save(ring(1), path)
    lincon.save(ring(2), other)
    safe_open = contents.safe_open

    def replaced_meanwhile(*arguments):
        opened = safe_open(*arguments)
        if other.exists():
            other.rename(path)
        return opened

    monkeypatch.setattr(contents, "safe_open", replaced_meanwhile)
    assert seed_of(path) == 2


def test_save_that_is_killed_leaves_a_file_that_loads(tmp_path):
    path = tmp_path / "model.safetensors"
    lincon.save(ring(1), path)
    written = path.stat().st_mtime_ns
    process = saver(path, 2, 10**6)
    while path.stat().st_mtime_ns == written:
        time.sleep(0.001)
    time.sleep(random.Random(0).uniform(0, 0.1))
    process.kill()
    process.join()
    assert seed_of(path) == 2


def test_save_to_a_link_replaces_what_it_leads_to_and_keeps_the_link(tmp_path):
    (tmp_path / "run").mkdir()
    real, link = tmp_path / "run/model.safetensors", tmp_path / "latest"
    link.symlink_to("run/model.safetensors")
    for seed in (1, 2):  # at first it leads to nothing
        lincon.save(ring(seed), link)
        assert link.is_symlink() and not real.is_symlink()
        assert seed_of(link) == seed_of(real) == seed
    assert os.listdir(tmp_path / "run") == [real.name]


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path, kind):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = pipe if kind == "pipe" else tmp_path / "link"
    if path != pipe:
        path.symlink_to(pipe)
    with pytest.raises(lincon.LinconError, match="a device or a pipe; give the name of a file"):
        lincon.save(ring(), path)
    assert pipe.is_fifo()


def close_to_writing(folder):
    folder.chmod(0o555)


def of_another_user_in_a_folder_for_all(folder):
    folder.chmod(0o1777)  # as /tmp is: nobody removes what another owns


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("closed", [close_to_writing, of_another_user_in_a_folder_for_all])
def test_a_file_that_may_not_be_replaced_stays_as_it_is(tmp_path, closed):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.safetensors"
    lincon.save(ring(1), path)
    closed(folder)
    before = path.read_bytes()
    model = ring(2)
    around = Path(tempfile.gettempdir())
    for parent in (tmp_path, *(each for each in tmp_path.parents if around in each.parents)):
        parent.chmod(parent.stat().st_mode | 0o011)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(lincon.FileError, match=r"could not be written .*is as it was"):
            lincon.save(model, path)
    finally:
        os.seteuid(0)
    assert path.read_bytes() == before and os.listdir(folder) == [path.name]
    assert torch.equal(model.free, ring(2).free)
