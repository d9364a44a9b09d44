"""A few random programs of what may happen to a constrained model; `make soak` runs a thousand."""

from . import programs


def test_whatever_happens_to_a_model_its_outputs_stay_the_dense_oracles():
    taken = programs.run(12, steps=20, derandomize=True)
    assert taken["train"] and taken["save and load"] and taken["merge"] and taken["quantize"]
