"""Every registered generator is a scheme on the command line, with its options."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lincon
from lincon import LinconError
from lincon.generators import available
from lincon.tasks.experiments.schemes.named import needs_tables
from lincon.tasks.experiments.task import TASKS, find_task
from lincon.tasks.experiments.training.models import build
from lincon.tasks.experiments.training.recipe import Cell

from .test_cli import call, refused

SIMPLE = [name for name in available() if not needs_tables(name)]
DIGITS = 1, 10, 8


def generator_of(scheme, dof=0.1, model="vit-micro:patch=4"):
    (constraint,) = lincon.constraints(build(Cell(model, scheme, dof, 0), DIGITS))
    return [group.generator for group in constraint.groups]


def test_a_generator_that_asks_for_shapes_is_listed_as_any_other(monkeypatch):
    class Shaped(lincon.generators.OneNonzero):
        name = "shaped"

        def __init__(self, rows, dof, seed=0, *, shapes):
            super().__init__(rows, dof, seed)

        def entries(self, rows):
            return rows % self.dof, None

    monkeypatch.setattr("lincon.tasks.experiments.schemes.named.get", lambda name: Shaped)
    assert not needs_tables("shaped")


def test_generators_that_need_tables_are_known():
    assert set(available()) - set(SIMPLE) == {
        "lego",
        "mask",
        "matrix",
        "nullspace",
        "part",
    }


@pytest.mark.parametrize(
    ("name", "scope"),
    [(name, scope) for name in SIMPLE for scope in ("model", "tensor") if name != "identity"]
    + [("identity", "model")],  # of a tensor, a count of free numbers is not that of its weights
)
def test_every_generator_is_a_scheme_at_each_scope(name, scope):
    dof = 1.0 if name == "identity" else 0.1
    generators = generator_of(f"{name}:scope={scope}", dof)
    assert all(generator.name == name for generator in generators)
    assert (len(generators) == 1) == (scope == "model")


@pytest.mark.parametrize("name", sorted(set(available()) - set(SIMPLE) - {"lego"}))
def test_a_generator_that_needs_tables_is_refused_by_name(name):
    with pytest.raises(LinconError, match=rf"^{name}: "):
        generator_of(name)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("ring", {"tile": "auto"}),
        ("ring:tile=1", {"tile": 1}),
        ("rpg:tile=1", {"tile": 1}),
        ("ring:order=deck,sign=false", {"order": "deck", "sign": False}),
        ("rpg-no-sign:permute=0", {"permute": False, "sign": False}),
        ("fold:chunk=7", {"chunk": 7}),
        ("kronecker:orthonormal=true", {"orthonormal": True}),
        ("dense:entries=normal", {"entries": "normal"}),
    ],
)
def test_options_reach_the_generator(scheme, options):
    for task in TASKS:
        found = find_task(task).scheme(scheme)
        assert {**{"tile": "auto"}, **found.options}.items() >= options.items()
    (generator,) = generator_of(scheme)
    spec = generator.spec()["options"]
    assert all(getattr(generator, k) == v for k, v in options.items() if k != "tile")
    assert options.get("tile") in (None, "auto", spec.get("tile"))


def test_options_of_a_scheme_keep_its_own():
    assert find_task("classification").scheme("hash:scale=none").options == {
        "scope": "tensor",
        "scale": None,
    }


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("rung", ["'rung'", "rpg (the same as ring)", "ring (the same as rpg)", "small"]),
        ("ring:tiles=1", ["'tiles'", "ring", "tile", "scope"]),
        ("ring:sign=maybe", ["sign", "'maybe'", "true or false"]),
        ("ring:tile=", ["tile"]),
        ("ring:", ["''", "tile"]),
        ("ring:scope=layer", ["scope", "'layer'", "model or tensor"]),
        ("small:tile=1", ["small", "no options"]),
        ("deep-compression:x=1", ["deep-compression", "no options"]),
        ("ring:rows=5", ["'rows'", "tile"]),
    ],
)
def test_a_wrong_name_or_option_is_one_line(scheme, words, tmp_path):
    said = refused("train", "--scheme", scheme, "--out", tmp_path / "out")
    assert all(word in said for word in words), said


PLUGIN = """
import torch
from lincon.generators import OneNonzero


class Cyclic(OneNonzero):
    name = "cyclic"

    def __init__(self, rows, dof, seed=0, *, block=1):
        super().__init__(rows, dof, seed)
        self.block = block

    def options(self):
        return {"block": self.block}

    def entries(self, rows):
        return rows // self.block % self.dof, torch.ones_like(rows)
"""


@pytest.mark.usefixtures("own_registry")
def test_a_generator_class_of_a_file_is_a_scheme_with_its_options(tmp_path, monkeypatch):
    named = PLUGIN.replace('"cyclic"', '"cyclic-in-a-file"')
    (tmp_path / "cyclic_in_a_file.py").write_text(f"{named}\nnothing = 3\n")
    (tmp_path / "cyclic.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):  # once it is registered, its name is also that of its module
        assert generator_of("cyclic:Cyclic:block=3")[0].block == 3
        assert generator_of("cyclic:Cyclic")[0].block == 1
    assert generator_of("cyclic:block=3")[0].block == 3
    scheme = "cyclic_in_a_file:Cyclic:block=4"
    (generator,) = generator_of(scheme)
    assert generator.name == "cyclic-in-a-file" and generator.block == 4
    result = call("compare", "--schemes", f"vanilla,{scheme}", "--dof", "0.1", "--model",
                  "resnet-small", "--images", 64, "--epochs", 1, "--seeds", 2, "--out",
                  tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    table = (tmp_path / "out" / "table.md").read_text()
    assert scheme in table and "minus vanilla's" in table
    for wrong, words in (
        ("cyclic_in_a_file:nothing", ["int", "'nothing'", "Cyclic"]),
        ("cyclic_in_a_file:Cyclic:blocks=4", ["'blocks'", "block"]),
        ("cyclic_in_a_file:Cyclic:block=four", ["block", "'four'", "cyclic_in_a_file:Cyclic"]),
        ("no_such_file:Cyclic", ["Cannot import 'no_such_file'"]),
        ("cyclic_in_a_file", ["Unknown scheme", "package.module:Class"]),
    ):
        said = refused("train", "--scheme", wrong, "--out", tmp_path / "wrong")
        assert all(word in said for word in words), said


@pytest.mark.parametrize("scheme", ["ring:order=up", "ring:tile=0", "fold:chunk=99999999"])
def test_a_value_that_a_generator_refuses_is_one_line(scheme, tmp_path):
    said = refused("train", "--scheme", scheme, "--out", tmp_path / "out")
    assert scheme.partition(":")[0] in said


def test_two_generators_with_options_are_compared(tmp_path):
    schemes = "rpg,ring:tile=1,order=deck,fold:chunk=8"
    arguments = ["compare", "--schemes", schemes, "--epochs", 1, "--images", 64, "--seeds", 1]
    result = call(*arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["scheme"] for run in runs] == ["rpg", "ring:tile=1,order=deck", "fold:chunk=8"]
    for folder in (tmp_path / "runs").iterdir():
        assert call("evaluate", folder).exit_code == 0


def test_a_generator_of_another_distribution_is_a_scheme_and_its_edit_is_seen(tmp_path):
    (tmp_path / "cyclic.py").write_text(PLUGIN)
    installed = tmp_path / "cyclic-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: cyclic\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[lincon.generators]\ncyclic = cyclic:Cyclic\n")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import lincon.cli; lincon.cli.main()"
    arguments = [
        "compare",
        "--schemes",
        "ring:tile=1,cyclic:block=8",
        "--epochs",
        "1",
        "--seeds",
        "1",
    ]
    arguments += ["--images", "64", "--out", str(tmp_path / "out")]

    def run():
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    done = run()
    assert done.returncode == 0 and "cyclic:block=8" in done.stdout, done.stderr
    (tmp_path / "cyclic.py").write_text(PLUGIN.replace("% self.dof", "* 3 % self.dof"))
    again = run()
    assert again.returncode == 2 and "code of cyclic" in again.stderr
