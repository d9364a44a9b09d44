"""Settings of `make bench`: two threads, a fixed seed, results in `speed-<date>-<commit>`."""

import os
import platform
from typing import Any

import numpy
import pytest
import torch

from benchmarks.results import RESULTS, keep_speed

THREADS = min(2, os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _same_threads_and_seed() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(
        platform=platform.platform(),
        processor=_processor(),
        cpus=os.cpu_count(),
        threads=THREADS,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
    )


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    rows = [
        {
            "group": measured["group"],
            "name": measured["name"],
            "median": measured["stats"]["median"],
            "rounds": measured["stats"]["rounds"],
            "quartiles": [measured["stats"]["q1"], measured["stats"]["q3"]],
            **measured["extra_info"],
        }
        for measured in output_json["benchmarks"]
    ]
    result = {
        "machine": output_json["machine_info"],
        "commit": output_json["commit_info"],
        "rows": rows,
    }
    keep_speed(RESULTS, "speed", result)


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()
