import pytest

from kd3_pipeline.classes import DEMO_SETS, load_classes, renamed, set_names
from kd3_pipeline.classes.expansion import TEMPLATES
from kd3_pipeline.classes.wording import doubt, readable, same
from kd3_pipeline.errors import UserError


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
    monkeypatch.setattr("kd3_pipeline.classes.HERE", tmp_path / "sets")
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
        ({"a": 0}, "crawl.classes: a: expected a list of words to search for, got 0"),
        ({"a": [3]}, "a: expected"),
        ({"a": [""]}, "a: expected"),
        ({"a": {"b": "c"}}, "a.b: unknown key 'b'; known keys: queries, synonyms, contexts"),
        ({"a": {"sinonyms": []}}, "a.sinonyms: unknown key 'sinonyms'; did you mean 'synonyms'"),
        ({"a": {2: []}}, "a.2: unknown key '2'"),
        ({"a": {"synonyms": [3]}}, "a.synonyms: expected a list of words to search for"),
        ({"a": {"contexts": [" "]}}, "a.contexts: expected"),
        ({"a": {"queries": {"b": "c"}}}, "a.queries: expected"),
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


def test_a_wrong_key_is_told_with_its_file_and_class(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dog:\ncat:\n  synonims: [feline]\n")
    with pytest.raises(UserError, match=r"mine.yaml:3: cat.synonims: unknown .* 'synonyms'"):
        load_classes(str(path))


# the words that are searched for


@pytest.mark.parametrize(
    ("name", "query"),
    {
        "aquarium_fish": "aquarium fish",
        "AnnualCrop": "annual crop",
        "HerbaceousVegetation": "herbaceous vegetation",
        "SeaLake": "sea lake",
        "CupOfTea": "cup of tea",
        "2_door_car": "2 door car",
        "2DoorCar": "2 door car",
        "101dalmatians": "101 dalmatians",
        "Boeing747": "boeing 747",
        "iPhone12": "iPhone 12",
        "iPhoneCase": "iPhone case",
        "USAFlag": "USA flag",
        "TVSet": "TV set",
        "TShirt": "T shirt",
        "ÉtangBleu": "étang bleu",
        "T-shirt/top": "T-shirt top",
        "great-white-shark": "great white shark",
        "black-footed_ferret": "black-footed ferret",
        "volleyball_court/outdoor": "volleyball court outdoor",
        "crane_(bird)": "crane bird",
        "GOLDEN_RETRIEVER": "GOLDEN RETRIEVER",
        "black_&_white_cat": "black & white cat",
        "-cat": "cat",
        "001.Black_footed_Albatross": "Black footed Albatross",
        "n02085620-Chihuahua": "Chihuahua",
        "/a/airfield": "airfield",
        "tench, Tinca tinca": "tench",
        "красная_лиса": "красная лиса",
    }.items(),
)
def test_a_name_is_searched_for_as_people_write_it(name, query):
    assert readable(name) == query
    assert readable(query) == query
    [one] = load_classes([name]).classes
    assert (one.name, one.queries, one.derived) == (name, (query,), True)


@pytest.mark.parametrize(
    "name",
    [
        *("cat", "AT&T", "C#", "C++", ".NET", "R&B", "USA", "U.S.A.", "iPhone", "eBay", "PhD"),
        *("McDonalds", "SUVs", "mp3", "A320", "H2O", "4x4", "3D", "2nd", "F-16", "T-shirt"),
        *("24/7", "AC/DC", "TCP/IP", "don't", "O'Neill", "AT&T logo", "red McLaren"),
        *(
            "German short-haired pointer",
            "1,000 steps",
            "日本",
            "КраснаяЛиса",
            "ごみ-箱",
            "n02123045",
        ),
        *("_", "--", "12", "Highway", "../x", "<script>alert(1)</script>", "$(touch pwned);`id`"),
    ],
)
def test_a_name_that_people_write_so_stays(name):
    assert readable(name) == name


def test_queries_are_sent_as_written():
    classes = load_classes({"aquarium_fish": ["aquarium_fish", "AquariumFish", "a-b, c"]})
    [one] = classes.classes
    assert one.queries == ("aquarium_fish", "AquariumFish", "a-b, c")
    assert not one.derived and renamed(classes) == []


def test_readable_names_are_told():
    [line] = renamed(load_classes(["aquarium_fish", "cat", "AnnualCrop"]))
    assert "aquarium_fish → aquarium fish, AnnualCrop → annual crop;" in line
    assert "cat" not in line
    assert renamed(load_classes(["cat", "red fox"])) == []
    assert renamed(load_classes("cifar100")) == []


def test_a_long_list_of_readable_names_is_counted():
    [line] = renamed(load_classes([f"red_{letter * 3}" for letter in "abcdefghijklmnopqrstuvwxyz"]))
    assert "red_ttt → red ttt and 6 more" in line


@pytest.mark.parametrize("name", ["n02123045", "12", "class_1", "class 0", "label-7"])
def test_a_number_for_a_name_is_told(name):
    assert doubt(name)
    assert any(name in line and "give queries" in line for line in renamed(load_classes([name])))
    assert not any("give queries" in line for line in renamed(load_classes({name: ["cat"]})))


def test_classes_that_ask_for_the_same_are_told():
    lines = renamed(
        load_classes({"sea_lion": None, "SeaLion": [], "seal": ["Sea lion"], "cat": []})
    )
    assert any("sea_lion, SeaLion, seal ask for the same, 'sea lion'" in line for line in lines)
    assert not any("ask for the same, 'cat'" in line for line in lines)


# what else to ask


CAT = {"cat": {"queries": ["cat photo"], "synonyms": ["feline", "Cat  Photo"], "contexts": []}}


def test_a_class_lists_synonyms_and_contexts():
    contexts = ["in the wild", "sleepy {} indoors", "outdoors", "{}", "{} photo"]
    spec = {"cat": CAT["cat"] | {"contexts": contexts}}
    [one] = load_classes(spec).classes
    listed = (
        ("synonym", "feline"),
        ("context-in-the-wild", "cat in the wild"),
        ("context-sleepy-indoors", "sleepy cat indoors"),
        ("context-outdoors", "cat outdoors"),
        ("context", "cat"),
    )
    assert one.expansions("none") == ()
    assert one.expansions("listed") == listed
    every = one.expansions("all")
    assert every[: len(listed)] == listed
    assert ("context-close-up", "cat close up") in every


def test_templates_expand_a_class_that_lists_nothing():
    [one] = load_classes(["AnnualCrop"]).classes
    assert one.expansions("listed") == ()
    assert len(one.expansions("all")) == len(TEMPLATES)
    assert one.expansions("all")[0] == ("context-photo", "annual crop photo")


def test_other_names_in_a_name_are_its_synonyms():
    [one] = load_classes(["tench, Tinca tinca, doctor_fish"]).classes
    assert one.expansions("listed") == (("synonym", "Tinca tinca"), ("synonym", "doctor fish"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "shapes10"])
def test_no_expansion_repeats_a_query(name):
    for one in load_classes(name).classes:
        asked = [*one.queries, *(query for _, query in one.expansions("all"))]
        assert len({same(query) for query in asked}) == len(asked)
        assert all("{}" not in query and query == query.strip() for query in asked)


def test_another_way_to_expand_is_an_error():
    with pytest.raises(ValueError, match="'some' is none of"):
        load_classes(["cat"]).classes[0].expansions("some")


def test_cifar10_asks_for_nothing_that_it_excludes():
    words = {
        one.name: " ".join([*one.queries, *(query for _, query in one.expansions("all"))]).lower()
        for one in load_classes("cifar10").classes
    }
    assert not [name for name in ("automobile", "truck") if "pickup" in words[name]]
    assert "truck" not in words["automobile"] and " car " not in words["truck"]
    assert not [name for name in words if "drawing" in words[name] or "toy" in words[name].split()]
