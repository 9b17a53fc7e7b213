import pytest

from pipeline.classes import DEMO_SETS, load_classes, set_names
from pipeline.errors import UserError


def names(spec):
    return [one.name for one in load_classes(spec).classes]


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100), ("shapes10", 10)])
def test_named_sets_have_their_classes(name, count):
    classes = load_classes(name)
    assert classes.name == name
    assert len(classes.classes) == len(set(names(name))) == count
    assert all(one.queries for one in classes.classes)


def test_cifar100_is_in_the_order_of_its_labels():
    found = names("cifar100")
    assert found == sorted(found)
    assert (found[0], found[99]) == ("apple", "worm")


def test_cifar10_is_in_the_order_of_its_labels():
    known = "airplane automobile bird cat deer dog frog horse ship truck"
    assert names("cifar10") == known.split()


def test_all_sets_are_listed():
    assert set_names() == ["cifar10", "cifar100", "shapes10"]
    assert set(DEMO_SETS) <= set(set_names())


def test_a_list_asks_for_its_names():
    classes = load_classes(["cat", " AT&T logo ", "日本", "C#"])
    assert classes.name == ""
    assert [(one.name, one.queries) for one in classes.classes] == [
        ("cat", ("cat",)),
        ("AT&T logo", ("AT&T logo",)),
        ("日本", ("日本",)),
        ("C#", ("C#",)),
    ]


def test_names_may_come_with_commas():
    assert names("cat, big dog ,,") == ["cat", "big dog"]
    assert names("cat,") == ["cat"]


def test_a_mapping_gives_queries():
    classes = load_classes({"cat": ["tabby cat", " kitten "], "dog": [], "bird": None})
    assert [one.queries for one in classes.classes] == [
        ("tabby cat", "kitten"),
        ("dog",),
        ("bird",),
    ]


@pytest.mark.parametrize(
    "text", ["- cat\n- dog\n", "cat: [a, b]\ndog:\n", "cat: kitten\ndog: []\n", "[cat, dog]"]
)
def test_a_yaml_file_holds_names_or_queries(tmp_path, text):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    assert names(str(path)) == ["cat", "dog"]


def test_words_in_a_file_mean_what_they_mean_in_params(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("[yes, no, on, 1:30]")
    assert names(str(path)) == ["yes", "no", "on", "1:30"]


@pytest.mark.parametrize(("wrong", "meant"), [("cifar1O", "cifar10"), ("shape10", "shapes10")])
def test_an_unknown_set_suggests_a_near_one(wrong, meant):
    with pytest.raises(UserError, match=f"{wrong}.*did you mean '{meant}'"):
        load_classes(wrong)


def test_an_unknown_set_lists_the_known_ones():
    with pytest.raises(UserError, match="cifar10, cifar100, shapes10"):
        load_classes("zebra")


@pytest.mark.parametrize("name", ["../x", "../../x", "x", "/x", "", ".", "..", "x\x00", "*"])
def test_a_name_never_reads_a_file(tmp_path, monkeypatch, name):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "known.yaml").write_text("[a]")
    for place in (tmp_path, tmp_path / "sets" / "deeper"):
        place.mkdir(exist_ok=True)
        (place / "x.yaml").write_text("[secret]")
    monkeypatch.setattr("pipeline.classes.HERE", tmp_path / "sets")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no class set named"):
        load_classes(name)
    assert names("known") == ["a"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["a", "b", "a"], "twice: a"),
        (["a", " a"], "twice: a"),
        ("a,b,b", "twice: b"),
        ([], "no names"),
        (",", "no names"),
        ({}, "no names"),
        ([""], "expected a name"),
        (["a", 3], "3"),
        ([["a"]], "expected a name"),
        ({"a": 0}, "'a'"),
        ({"a": [3]}, "'a'"),
        ({"a": [""]}, "'a'"),
        ({"a": {"b": "c"}}, "'a'"),
        (3, "expected a list of names"),
        (None, "expected a list of names"),
    ],
)
def test_wrong_classes_are_named(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        load_classes(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: [x]\nb: [y]\na: [z]\n", r"mine.yaml:3: a: .*mine.yaml:1"),
        (b"a: [x\n", "mine.yaml:2"),
        (b"\xff\xfe", "cannot be read"),
        (b"a: !!python/object:os.system x", "mine.yaml:1"),
        (b"just words", "expected a list of names"),
        (b"", "expected a list of names"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path, data, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        load_classes(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"class file .*none.yaml not found"):
        load_classes(str(tmp_path / "none.yaml"))
