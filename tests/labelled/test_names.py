"""Files of class names, in the forms that people have them."""

import json

import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.labelled.names import class_names_of, listed_names

KEY = "teacher.class_names"
LISTS = {
    "lines.txt": "cat\nred fox\n",
    "windows.txt": "\ufeffcat\r\nred fox\r\n\r\n",
    "numbered.txt": "0 cat\n1 red fox",
    "colons.txt": "0: cat\n1: red fox",
    "labels.csv": "0,cat\n1,red fox\n",
    "list.json": '["cat", "red fox"]',
    "by number.json": '{"1": "red fox", "0": "cat"}',
    "class_to_idx.json": '{"red fox": 1, "cat": 0}',
    "config.json": '{"id2label": {"0": "cat", "1": "red fox"}, "num_labels": 2}',
    "label2id.json": '{"label2id": {"cat": 0, "red fox": 1}}',
    "ours.json": '{"class_names": ["cat", "red fox"], "architecture": {"name": "resnet8"}}',
    "data.yaml": "names:\n  0: cat\n  1: red fox\nnc: 2\n",
    "list.yml": "- cat\n- red fox\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_names_are_read_in_the_order_of_their_numbers(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name])
    assert listed_names(str(tmp_path / name), KEY) == ["cat", "red fox"]


def test_names_that_are_given_are_the_names():
    assert listed_names(["cat", "dog"], KEY) == ["cat", "dog"]
    assert listed_names([], KEY) == listed_names("", KEY) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("imagenet.json", json.dumps({"0": ["n01440764", "tench"], "1": ["n01443537", "crane"]})),
        ("synsets.txt", "n01440764 tench\nn01443537 crane\n"),
    ],
)
def test_imagenets_files_have_two_names_for_a_class(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = class_names_of(str(tmp_path / name), KEY)
    assert found.listed == ["tench", "crane"]
    assert found.renamed == {"n01440764": "tench", "n01443537": "crane"}


def test_a_mapping_of_names_numbers_none(tmp_path):
    (tmp_path / "x.json").write_text('{"n01440764": "tench"}')
    found = class_names_of(str(tmp_path / "x.json"), KEY)
    assert (found.listed, found.renamed) == ([], {"n01440764": "tench"})
    assert class_names_of({"Dog": "dog"}, KEY).renamed == {"Dog": "dog"}
    with pytest.raises(UserError, match="has no name for the number 0"):
        listed_names(str(tmp_path / "x.json"), KEY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": "cat", "2": "dog"}', "has no name for the number 1"),
        ('{"cat": 1, "dog": 1}', "none has the number 0"),
        ('["cat", 3]', "class 1 has 3 for a name"),
        ('{"a": {"b": 1}}', "holds no names of classes"),
        ("[1", "cannot be read"),
        ("3", "holds no names of classes"),
    ],
)
def test_what_holds_no_names_says_why(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        listed_names(str(tmp_path / "x.json"), KEY)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.class_names: .*no\.txt not found"):
        listed_names(str(tmp_path / "no.txt"), KEY)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\0\1")
    with pytest.raises(UserError, match="cannot be read"):
        listed_names(str(tmp_path / "x.txt"), KEY)
    (tmp_path / "y.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match="class 1 has '' for a name"):
        listed_names(str(tmp_path / "y.txt"), KEY)
