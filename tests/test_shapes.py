"""What signatures say of shapes is checked in the tests."""

import pytest
import torch
from jaxtyping import TypeCheckError

from lincon.quantising import to_integers


def test_a_shape_that_its_signature_does_not_allow_is_refused_in_the_tests():
    with pytest.raises(TypeCheckError, match="values"):
        to_integers(torch.zeros(2, 2), 4, 2)
    with pytest.raises(TypeCheckError):
        to_integers(torch.zeros(4, dtype=torch.int64), 4, 2)
    assert len(to_integers(torch.zeros(4), 4, 2)[0]) == 4
