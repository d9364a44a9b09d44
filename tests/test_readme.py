"""The code in the README and the pages runs as it stands, and what they link to is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lincon

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs" / "tutorials").glob("*.md"),
    *(ROOT / "tasks").glob("*/README.md"),
    ROOT / "benchmarks" / "README.md",
]


def test_the_readme_code_runs(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(code[1], "README.md", "exec"), {})
    assert "generated rows" in capsys.readouterr().out and (tmp_path / "model.safetensors").exists()


def test_the_experiment_on_its_page_runs_and_leaves_nothing(tmp_path, monkeypatch):
    page = ROOT / "docs" / "experiments.md"
    first, second = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(first, "experiments.md", "exec"), names)
    exec(compile(second, "experiments.md", "exec"), names)
    assert [row["scheme"] for row in names["result"].rows] == ["vanilla", "ring"]
    assert list(tmp_path.iterdir()) == []


def test_the_generator_on_its_page_obeys_the_laws_and_is_used(tmp_path):
    page = ROOT / "docs" / "generators.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    (tmp_path / "mine.py").write_text(code)
    command = sys.executable, tmp_path / "mine.py"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "83 numbers for 750 weights\n"


@pytest.mark.long
def test_the_sharded_example_runs_under_torchrun(tmp_path):
    page = ROOT / "docs" / "processes.md"
    (code,) = re.findall(r"```python\n(# train.py.*?)```", page.read_text(), re.S)
    (tmp_path / "train.py").write_text(code)
    command = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "train.py",
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    size = (tmp_path / "model.safetensors").stat().st_size
    assert done.stdout == f"{size} bytes\n" and (tmp_path / "checkpoint" / ".metadata").exists()
    assert lincon.inspect(tmp_path / "model.safetensors").dof > 0


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
