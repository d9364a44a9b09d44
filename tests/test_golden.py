"""A seed stays a seed: golden files cover every generator, every option, and what `constrain` draws."""

import json
from pathlib import Path

import pytest
import torch

import lincon
from lincon.generators import available

from .cases import GIVEN, OPTIONS, make
from .golden import beginnings

GOLDEN = Path(__file__).parent / "golden"


pytestmark = pytest.mark.usefixtures("by_kernels")


@pytest.mark.parametrize("name", [name for name in available() if name not in GIVEN])
def test_each_option_is_set_in_a_golden_file(name):
    options = set(make(name, 50, 7, 3, {}).options()) - set(make(name, 50, 7, 3, {}).tables())
    varied = {option for choices in OPTIONS[name] for option in choices}
    assert options - {"shapes"} <= varied  # shapes are those of the tensors, not a choice
    assert len(list(GOLDEN.glob(f"{name}-[0-9]*.safetensors"))) == len(OPTIONS[name])


@pytest.mark.parametrize("choices", beginnings.cases(), ids=str)
def test_constrain_draws_what_it_drew_in_the_first_release(choices):
    expected = json.loads(beginnings.FILE.read_text())[str(choices)]
    found = beginnings.beginning(**choices)
    assert found.keys() == expected.keys()
    for name, numbers in found.items():
        torch.testing.assert_close(
            torch.tensor(numbers), torch.tensor(expected[name]), rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize("name", beginnings.SMALLER)
def test_golden_files_of_format_2_load_as_they_were_saved(name):
    fresh = beginnings.model()
    lincon.load(fresh, GOLDEN / f"{name}-0.safetensors")
    assert lincon.inspect(GOLDEN / f"{name}-0.safetensors").header["format"] == 2
    expected = json.loads((GOLDEN / f"weights.{name}-0.json").read_text())
    (constraint,) = lincon.constraints(fresh)
    for entry, weight in constraint.weights().items():
        torch.testing.assert_close(weight.flatten(), torch.tensor(expected[entry]), rtol=0, atol=0)
