"""The names that the documentation promises stay where they are."""

from importlib import import_module

import pytest

PUBLIC = {
    "lincon": "Constraint DofError Entry FileError Generator Ledger LinconError LinconWarning TargetError "
    "UnknownGeneratorError check_ranks constrain constrain_like constraints fully_shard generators inspect load merge "
    "plot prune quantize save spec summary zeros",
    "lincon.experiments": "Result Settings compare convergence generalization scaling",
    "lincon.cli": "main",
    "lincon.counter": "below bits key normals signs",
    "lincon.exporting": "export merged_copy save_program",
    "lincon.generator": "Generator",
    "lincon.generators": "Codebook Dense Fastfood Fold Hash Identity Kronecker Lego Mask Matrix Nullspace Part "
    "Random Ring Sparse available build get register",
    "lincon.int8": "to_int8",
    "lincon.integrations.opacus": "constant_offset",
    "lincon.integrations.transformers": "ConstrainedMixin describe from_pretrained save_pretrained",
    "lincon.recycling": "keep_pages",
    "lincon.slicing": "slice_tensors",
    "lincon.tasks.indoor.data.writing": "write",
    "lincon.testing": "check_generator",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_documented_names_are_where_they_were(module):
    found = import_module(module)
    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []
