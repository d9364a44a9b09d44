"""Results of a run land in `benchmarks/results/speed-<date>-<commit>/`: JSON, a table, a picture. None is edited."""

import json
import os
import platform
import time
from typing import Any

import numpy
import pytest
import torch

from benchmarks.folder import RESULTS, new_folder
from benchmarks.table import write


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    torch.manual_seed(0)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(
        platform=platform.platform(),
        processor=_processor(),
        cpus=os.cpu_count(),
        threads=min(2, os.cpu_count() or 1),
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
    )


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    rows = [
        {
            "group": b["group"],
            "name": b["name"],
            "median": b["stats"]["median"],
            "rounds": b["stats"]["rounds"],
            **b["extra_info"],
        }
        for b in output_json["benchmarks"]
    ]
    commit = output_json["commit_info"]
    folder = new_folder(RESULTS, f"speed-{time.strftime('%Y-%m-%d')}-{str(commit['id'])[:8]}")
    result = {"machine": output_json["machine_info"], "commit": commit, "rows": rows}
    (folder / "results.json").write_text(json.dumps(result, indent=1))
    write(folder)


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        return next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            platform.processor(),
        )
