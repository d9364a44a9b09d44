"""The private names of torch that lincon needs are there, and are all in one list."""

from tests import private_names


def test_this_torch_has_every_private_name_that_is_used():
    assert private_names.missing() == []


def test_every_private_name_that_is_used_is_listed():
    listed = private_names.listed()
    assert {n: file for n, file in private_names.used().items() if n not in listed} == {}


def test_no_name_is_listed_that_is_used_no_more():
    text = "".join(path.read_text() for path in private_names.sources())
    assert [name for name in private_names.MODULES if name.rpartition(".")[2] not in text] == []
