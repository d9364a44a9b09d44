"""The code in the README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import lincon

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_code_runs(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(code[1], "README.md", "exec"), {})
    assert "generated rows" in capsys.readouterr().out and (tmp_path / "model.safetensors").exists()


def test_the_sharded_example_runs_under_torchrun(tmp_path):
    (code,) = re.findall(r"```python\n(# train.py.*?)```", README.read_text(), re.S)
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
