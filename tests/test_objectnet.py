"""ObjectNet: its mappings and protocols."""

import pytest
import torch

from lincon import LinconError
from lincon.errors import LinconWarning
from lincon.tasks.classification.data.objectnet import ObjectNet, protocol

from .classification_files import write_json, write_objectnet


@pytest.mark.parametrize("folder", [".", "objectnet-1.0"])
def test_objectnet_is_read_without_frame_and_with_its_mapping(tmp_path, folder):
    inner = write_objectnet(tmp_path / folder)
    data = ObjectNet(tmp_path)
    assert data.names == ["Alarm clock", "Chair"] and data.mapping == [[1], [2, 0]]
    images, labels = data[[0, 1]]
    assert labels.tolist() == [0, 1] and images[0].equal(inner) and images[1].equal(inner)
    assert [path.parent.name for path in data.paths] == ["alarm_clock", "chair"]


MAPPINGS = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "pytorch_to_imagenet_2012_id.json",
    "imagenet_to_label_2012_v2",
)


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_missing_mapping_is_named(tmp_path, name):
    write_objectnet(tmp_path)
    (tmp_path / "mappings" / name).unlink()
    with pytest.raises(LinconError, match=f"{name} is missing"):
        ObjectNet(tmp_path)


@pytest.mark.parametrize("name", MAPPINGS[:3])
@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_a_mapping_that_is_no_object_is_named(tmp_path, name, content):
    write_objectnet(tmp_path)
    (tmp_path / "mappings" / name).write_text(content)
    with pytest.raises(LinconError, match=f"{name} is no JSON object"):
        ObjectNet(tmp_path)


@pytest.mark.parametrize(
    "name, content, match",
    [
        (MAPPINGS[1], {"Sofa": "barber chair"}, "'Sofa' is no label"),
        (MAPPINGS[1], {"Chair": "rocking chair"}, "'Chair' -> 'rocking chair' has no line"),
        (MAPPINGS[1], {"Chair": 3}, "'Chair' -> 3 is no text"),
        (MAPPINGS[0], {"chair": ["Chair"]}, r"'chair' -> \['Chair'\] is no text"),
        (MAPPINGS[2], {"0": 3, "1": 3}, "1 -> 3 is also what 0"),
        (MAPPINGS[2], {"1000": 3}, "'1000' -> 3"),
        (MAPPINGS[2], {"0": "n0"}, "'0' -> 'n0'"),
        (
            MAPPINGS[0],
            {"chair": "Chair", "stool": "Chair", "alarm_clock": "Alarm clock"},
            "'stool' -> 'Chair' is also what 'chair'",
        ),
    ],
)
def test_mappings_that_do_not_fit_are_named_with_the_entry(tmp_path, name, content, match):
    write_objectnet(tmp_path)
    write_json(tmp_path / "mappings" / name, content)
    with pytest.raises(LinconError, match=rf"{name}: entry {match}"):
        ObjectNet(tmp_path)


def test_a_missing_folder_of_objectnet_is_named(tmp_path):
    write_objectnet(tmp_path)
    (tmp_path / "images/chair").rename(tmp_path / "images/seat")
    with pytest.raises(LinconError, match="images/chair is missing"):
        ObjectNet(tmp_path)


def test_what_tools_leave_behind_is_no_image_of_objectnet(tmp_path):
    write_objectnet(tmp_path)
    paths = ObjectNet(tmp_path).paths
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "0a1b.png~"):
        (tmp_path / "images/chair" / name).write_bytes(b"x")
    for name in ("@eaDir", ".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / "images/chair" / name).mkdir()
    assert ObjectNet(tmp_path).paths == paths
    (tmp_path / "images/chair/notes.txt").write_bytes(b"x")
    with pytest.warns(LinconWarning, match="Left out of .*images: 1 entry .*chair/notes.txt"):
        assert ObjectNet(tmp_path).paths == paths


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_folder_that_is_named_as_a_mapping_is_refused(tmp_path, name):
    write_objectnet(tmp_path)
    (tmp_path / "mappings" / name).unlink()
    (tmp_path / "mappings" / name).mkdir()
    with pytest.raises(LinconError, match=f"{name} is a folder, where a file is expected"):
        ObjectNet(tmp_path)


def test_a_file_that_is_named_as_a_class_is_refused(tmp_path):
    write_objectnet(tmp_path)
    (tmp_path / "images/chair/0a1b.png").unlink()
    (tmp_path / "images/chair").rmdir()
    (tmp_path / "images/chair").write_bytes(b"x")
    with pytest.raises(LinconError, match="images/chair is a file, where a folder is expected"):
        ObjectNet(tmp_path)


def test_protocols_differ_in_what_competes():
    mapping = [[5], [7, 8]]
    rows = [
        {5: 3.0, 7: 1.0},  # class 0 wins everywhere
        {999: 9.0, 5: 3.0, 7: 1.0},  # a class that ObjectNet lacks is above
        {8: 3.0, 5: 2.0},  # the other class is above
    ]
    logits = torch.zeros(3, 1000)
    for row, values in zip(logits, rows, strict=True):
        for index, value in values.items():
            row[index] = value
    labels = torch.tensor([0, 0, 0])
    kept = logits.clone()
    assert protocol(logits, labels, mapping, "A").tolist() == [True, False, False]
    assert protocol(logits, labels, mapping, "B").tolist() == [True, True, False]
    assert protocol(logits, labels, mapping, "C").tolist() == [True, True, False]
    assert protocol(logits, torch.tensor([1, 1, 1]), mapping, "A").tolist() == [False, False, True]
    assert logits.equal(kept)


def test_a_restricted_maximum_below_0_counts():
    logits = torch.zeros(1, 1000)
    logits[0, [5, 7, 8]] = torch.tensor([-5.0, -1.0, -2.0])
    correct = [protocol(logits, torch.tensor([1]), [[5], [7, 8]], which).item() for which in "ABC"]
    assert correct == [False, True, True]


def test_an_unknown_protocol_is_refused():
    with pytest.raises(LinconError, match="protocol 'D'; there are: A, B, C"):
        protocol(torch.zeros(1, 1000), torch.tensor([0]), [[1]], "D")
