from tests import shapes  # noqa: F401, I001  # before lincon is imported
import gc
import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings


if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton

settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("night", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config):
    """A warning of lincon's that no test expects fails it. (In pyproject.toml this would import lincon too early.)"""
    config.addinivalue_line("filterwarnings", "error::lincon.LinconWarning")
    if find_spec("triton") is None:  # it has no wheels but for Linux
        config.option.ignore_glob = [*(config.option.ignore_glob or []), "*/kernels/gpu*.py"]


MANY_PROCESSES = "test_distributed", "test_strategies", "test_interruption", "test_parallel"


def pytest_collection_modifyitems(items):
    """First the files whose few tests take long: at the end, one worker would wait for them alone."""
    items.sort(key=lambda item: item.path.stem not in MANY_PROCESSES)
    gc.freeze()  # what was imported is there for good: a collection need not go through it


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small operations: threads of a busy machine only wait for each other


@pytest.fixture
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    from lincon.maps import registry  # not earlier: Triton is to be told to interpret before

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.fixture
def wide_numbers(monkeypatch):
    """Triton's interpreter calls numbers from 2^31 to 2^32 int64, but holds them as uint32."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    convert = interpreter._implicit_cvt

    def converted(argument):
        value = convert(argument)
        if isinstance(argument, int) and value.dtype == interpreter.tl.int64:
            value.handle.data = value.handle.data.astype("int64")
        return value

    monkeypatch.setattr(interpreter, "_implicit_cvt", converted)


@pytest.fixture(scope="module")
def by_kernels():
    """Small maps too: `test_small_maps` sets their tables against this."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lincon.generators.one_nonzero.FEW", 0)
        yield
