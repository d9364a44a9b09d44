"""The code on the README's first screen runs as it stands."""

import re
from pathlib import Path


def test_the_readme_code_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(code[1], "README.md", "exec"), {})
    assert "generated rows" in capsys.readouterr().out and (tmp_path / "model.safetensors").exists()
