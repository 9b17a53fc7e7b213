import pytest
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.paramfile import read_params
from pipeline.params import Crawl, Params


def read(tmp_path, text, *overrides):
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_params(path, overrides)


def problems(tmp_path, text, *overrides):
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).split("\n")


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert read(tmp_path, "") == read(tmp_path, "# nothing\n") == Params()


def test_values_are_read(tmp_path):
    params = read(
        tmp_path,
        "crawl:\n  classes: [cat, dog]\n  per_class: 70\n  host_gap: 1\nteacher:\n"
        "  mean: [0.4, 0, 1]\n  flip: true\n  class_names: [a, b]\ndistill: {lr: 1e-3}\n",
    )
    assert (params.crawl.classes, params.crawl.per_class) == (["cat", "dog"], 70)
    assert params.crawl.host_gap == 1
    assert params.teacher.mean == (0.4, 0, 1)
    assert params.teacher.flip is True
    assert params.distill.lr == 0.001


@pytest.mark.parametrize(
    "written", ["star", "[star, ring]", "{star: [a star, stars], ring: []}", "yes, no"]
)
def test_classes_come_in_several_forms(tmp_path, written):
    assert read(tmp_path, f"crawl: {{classes: {written}}}" if written[0] in "[{" else
                f"crawl:\n  classes: {written}").crawl.classes  # fmt: skip


WRONG = [
    # (text, the one line that it gives)
    ("distill: {epohcs: 3}", "1: distill.epohcs: unknown key 'epohcs'; did you mean 'epochs'?"),
    ("\n\ncrawl:\n  sede: 3", "4: crawl.sede: unknown key 'sede'; did you mean 'seed'?"),
    ("distil:\n  epochs: 3", "1: distil: unknown key 'distil'; did you mean 'distill'?"),
    (
        "zzz: 3",
        "1: zzz: unknown key 'zzz'; known keys: "
        "crawl, dedup, teacher, embed, distill, evaluate, export, report",
    ),
    (
        "dedup: {2: 3}",
        "1: dedup.2: unknown key '2'; known keys: hash, exact_hash, radius, similarity,"
        " leaks, leak_similarity, workers",
    ),
    ("distill:\n  epochs: many", "2: distill.epochs: expected a whole number, got 'many'"),
    ("distill:\n  epochs: 3.5", "2: distill.epochs: expected a whole number, got 3.5"),
    ("distill:\n  epochs: 1e2", "2: distill.epochs: expected a whole number, got 100.0"),
    ("distill:\n  epochs: true", "2: distill.epochs: expected a whole number, got True"),
    ("distill:\n  epochs:", "2: distill.epochs: expected a whole number, got None"),
    ("distill:\n  epochs: '3'", "2: distill.epochs: expected a whole number, got '3'"),
    ("distill:\n  epochs: 1_000", "2: distill.epochs: expected a whole number, got '1_000'"),
    ("distill:\n  epochs: 1:30", "2: distill.epochs: expected a whole number, got '1:30'"),
    ("distill:\n  epochs: 0", "2: distill.epochs: expected at least 1, got 0"),
    (
        "dedup:\n  radius: 17",
        "2: dedup.radius: expected a whole number from 0 to 16, or auto, got 17",
    ),
    ("distill:\n  cutoff: 0", "2: distill.cutoff: expected more than 0.0, got 0"),
    ("distill:\n  lr: 0", "2: distill.lr: expected a number above 0, or auto, got 0"),
    ("distill:\n  lr: best", "2: distill.lr: expected a number above 0, or auto, got 'best'"),
    ("distill:\n  momentum: 1", "2: distill.momentum: expected less than 1.0, got 1"),
    ("distill:\n  cutoff: true", "2: distill.cutoff: expected a number, got True"),
    ("distill:\n  cutoff: .nan", "2: distill.cutoff: expected a finite number, got nan"),
    ("distill:\n  cutoff: .inf", "2: distill.cutoff: expected a finite number, got inf"),
    ("distill:\n  flip: yes", "2: distill.flip: expected true or false, got 'yes'"),
    ("distill:\n  flip: 1", "2: distill.flip: expected true or false, got 1"),
    ("distill:\n  student: 8", "2: distill.student: expected text, got 8"),
    (
        "crawl:\n  engine: bign",
        "2: crawl.engine: expected one of auto, bing, flickr, commons, openverse, google, baidu,"
        " site, urls, files, demo, got 'bign';"
        " did you mean 'bing'?",
    ),
    ("embed:\n  fit: 3", "2: embed.fit: expected one of crop, squash, got 3"),
    (
        "crawl: {str: 3}",
        "1: crawl.str: unknown key 'str'; known keys: " + ", ".join(Crawl.model_fields),
    ),
    ("teacher:\n  mean: 1", "2: teacher.mean: expected a list of three numbers, got 1"),
    ("teacher:\n  mean: [0, 1]", "2: teacher.mean.2: expected three numbers, got [0, 1]"),
    (
        "teacher:\n  mean: [0, 1, 1, 1]",
        "2: teacher.mean: expected three numbers, got [0, 1, 1, 1]",
    ),
    ("teacher:\n  mean: [0, 1, a]", "2: teacher.mean.2: expected a number, got 'a'"),
    ("teacher:\n  std: [0, 1, 1]", "2: teacher.std.0: expected more than 0.0, got 0"),
    ("teacher:\n  class_names: cat", "2: teacher.class_names: expected a list, got 'cat'"),
    ("teacher:\n  class_names: [1]", "2: teacher.class_names.0: expected text, got 1"),
    (
        "crawl:\n  classes: [1, 2]",
        "2: crawl.classes: expected a set's name, names, or names with lists of queries,"
        " got [1, 2]",
    ),
    (
        "crawl:\n  classes: {cat: tabby}",
        "2: crawl.classes: expected a set's name, names, or names with lists of queries,"
        " got {'cat': 'tabby'}",
    ),
    ("crawl:\n  contact: 2024-13-45\n  seed: -1", "3: crawl.seed: expected at least 0, got -1"),
    (
        "crawl:\n  seed: 99999999999999999999",
        "2: crawl.seed: expected less than 4294967296, got 99999999999999999999",
    ),
    ("distill: 3", "1: distill: expected a section with keys, got 3"),
    ("distill:\ndedup: {}", "1: distill: expected a section with keys, got None"),
    ("distill: {lr: 1}\ndistill: {lr: 2}", "2: distill: given twice, first at params.yaml:1"),
    ("dedup:\n  radius: 1\n  radius: 2", "3: dedup.radius: given twice, first at params.yaml:2"),
    ("crawl:\n\tseed: 1", "2: not YAML: found character '\\t' that cannot start any token"),
    ("a: 1\ncrawl: {seed: 1", "2: not YAML: expected ',' or '}', but got '<stream end>'"),
    ("a: 1\n? [b]\n: 2", "2: not YAML: found unhashable key"),
    ("a: 1\n---\nb: 2", "2: not YAML: but found another document"),
    (
        "a: !!python/object:os.system x",
        "1: not YAML: could not determine a constructor for the tag"
        " 'tag:yaml.org,2002:python/object:os.system'",
    ),
    ("a: 1\nb: \x07", "2: not YAML: special characters are not allowed"),
    ("a: *b", "1: not YAML: found undefined alias 'b'"),
    ("- crawl", "1: expected sections such as `crawl:`, got ['crawl']"),
    ("just words", "1: expected sections such as `crawl:`, got 'just words'"),
    ("=", "1: expected sections such as `crawl:`, got '='"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line.split(" got")[0] for _, line in WRONG])
def test_a_wrong_file_gives_exactly_one_line(tmp_path, text, line):
    assert problems(tmp_path, text) == [f"params.yaml:{line}"]


@pytest.mark.parametrize(
    "text", ["crawl: &a\n  b: *a", "crawl: " + "[" * 3000, "crawl: {seed: " + "9" * 5000 + "}"]
)
def test_yaml_without_end_is_one_line_too(tmp_path, text):
    (line,) = problems(tmp_path, text)
    assert line.startswith("params.yaml: not YAML: ")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^params.yaml not found in .*pipeline preset demo"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("data", [b"crawl: \xff\xfe", "crawl: é".encode("utf-16")])
def test_a_file_that_is_not_utf_8_is_refused(tmp_path, data):
    (line,) = problems(tmp_path, data)
    assert line.startswith("params.yaml cannot be read: 'utf-8' codec")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(UserError, match=r"^params.yaml cannot be read: .*directory"):
        read_params(tmp_path / "params.yaml")


def test_several_problems_come_in_the_order_of_the_file(tmp_path):
    text = "x: 3\nteacher:\n  epochs: a\ncrawl:\n  seed: 1\n  sed: 2\n\ndedup: {radius: 40}\n"
    lines = problems(tmp_path, text)
    assert [line.split(": ")[:2] for line in lines] == [
        ["params.yaml:1", "x"],
        ["params.yaml:3", "teacher.epochs"],
        ["params.yaml:6", "crawl.sed"],
        ["params.yaml:8", "dedup.radius"],
    ]


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "+1e-3", "0.001", ".001", "1.e-3"])
def test_numbers_with_an_exponent_are_numbers(tmp_path, written):
    assert read(tmp_path, f"distill: {{lr: {written}}}").distill.lr == 0.001


def test_a_leading_zero_is_no_octal_number(tmp_path):
    assert read(tmp_path, "crawl: {seed: 010}").crawl.seed == 10


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "2024-12-05", "1:30", "="])
def test_words_stay_words(tmp_path, word):
    assert read(tmp_path, f"crawl: {{contact: {word}}}").crawl.contact == word


def test_a_section_may_build_on_another(tmp_path):
    params = read(tmp_path, "teacher: &a {device: cpu, seed: 4}\nembed: {device: cpu}\n"
                  "distill:\n  <<: *a\n  seed: 5\n")  # fmt: skip
    assert (params.distill.seed, params.distill.device) == (5, "cpu")


# --set


def test_overrides_win_and_the_last_one_most(tmp_path):
    params = read(
        tmp_path,
        "distill:\n  epochs: 5\n",
        "distill.epochs=7",
        "crawl.classes=[cat, dog]",
        "distill.lr=1e-2",
        "distill.lr = 1e-3",
        "crawl.contact=",
        "teacher={epochs: 4}",
    )
    assert (params.distill.epochs, params.distill.lr) == (7, 0.001)
    assert (params.crawl.classes, params.crawl.contact) == (["cat", "dog"], "")
    assert params.teacher.epochs == 4


WRONG_OVERRIDES = [
    ("distill.epochs=a", "--set: distill.epochs: expected a whole number, got 'a'"),
    ("distill.epochs=", "--set: distill.epochs: expected a whole number, got ''"),
    ("distill.epochs=[3", "--set: distill.epochs: expected a whole number, got '[3'"),
    ("distill.epochs=!!int x", "--set: distill.epochs: expected a whole number, got '!!int x'"),
    ("distill.epohcs=3", "--set: distill.epohcs: unknown key 'epohcs'; did you mean 'epochs'?"),
    ("distil.epochs=3", "--set: distil: unknown key 'distil'; did you mean 'distill'?"),
    ("distill.epochs", "--set distill.epochs: expected key.path=value"),
    ("=3", "--set =3: expected key.path=value"),
    ("distill.lr.x=3", "--set distill.lr.x=3: distill.lr is not a section"),
    ("distill={cutoff: x}", "--set: distill.cutoff: expected a number, got 'x'"),
    (
        "dedup.radius.x=1",
        "--set: dedup.radius: expected a whole number from 0 to 16, or auto, got {'x': 1}",
    ),
]


@pytest.mark.parametrize(("override", "line"), WRONG_OVERRIDES)
def test_a_wrong_override_says_so_instead_of_a_line(tmp_path, override, line):
    assert problems(tmp_path, "distill:\n  lr: 3\n", override) == [line]


# values that are wrong together

CONFLICTS = [
    ("crawl: {engine: files}", "1: crawl.source: engine 'files' needs"),
    ("crawl: {engine: urls}", "1: crawl.source: engine 'urls' needs a .txt, .csv"),
    ("crawl: {engine: site}", "1: crawl.source: engine 'site' needs the address of a page"),
    ("crawl:\n  source: x", "2: crawl.source: only engines files, urls, site read it, not 'auto'"),
    ("crawl:\n  sample: 5", "2: crawl.sample: only engines files, urls, site use it, not 'auto'"),
    ("teacher: {source: hub}", "1: teacher.repository: source 'hub' needs owner/name:commit"),
    (
        "teacher:\n  source: torch.hub\n  repository: a/b:c",
        "1: teacher.weights: source 'torch.hub' needs the name of a function",
    ),
    ("teacher: {source: timm}", "1: teacher.weights: source 'timm' needs the name of the weights"),
    ("teacher: {source: file, path: x.pt, weights: y}", "1: teacher.weights: source 'file' does"),
    ("teacher: {source: file, path: x.pt, repository: y}", "1: teacher.repository: only sources"),
    ("teacher:\n  sha256: 0a23456789", "2: teacher.sha256: source 'train' has no file"),
    (
        "teacher: {source: hub, repository: a/b, path: x}",
        "1: teacher.path: only source 'file' reads it, not 'hub'",
    ),
    ("teacher: {source: file}", "1: teacher.path: source 'file' needs"),
    ("teacher:\n  path: x", "2: teacher.path: only source 'file' reads it"),
    (
        "teacher:\n  images: 5\n  batch_size: 6",
        "3: teacher.batch_size: larger than teacher.images (5): no full batch",
    ),
    (
        "crawl: {engine: files, source: x, sample: 100}\ndistill:\n  batch_size: 99",
        "3: distill.batch_size: larger than what crawl.sample (100) leaves",
    ),
    (
        "crawl: {classes: [a, b], per_class: 10}\ndistill: {batch_size: 32}",
        "2: distill.batch_size: larger than the 20 images that crawl can bring",
    ),
]


@pytest.mark.parametrize(("text", "line"), CONFLICTS)
def test_values_that_contradict_each_other_are_named(tmp_path, text, line):
    (found,) = problems(tmp_path, text)
    assert found.startswith(f"params.yaml:{line}")


@pytest.mark.parametrize(
    "text",
    [
        "crawl: {engine: files, source: x, sample: 200}",
        "crawl: {engine: urls, source: list.csv, classes: [a, b], per_class: 1}",
        "crawl: {engine: site, source: 'https://example.org/', sample: 200}",
        "teacher: {source: hub, repository: a/b}",
        "teacher: {source: torch.hub, repository: a/b, weights: c, trust: true}",
        "teacher: {source: torchvision, weights: DEFAULT, architecture: torchvision/resnet18}",
        "teacher: {images: 0}",
        "teacher: {source: file, path: x.pt, images: 5}",
        "crawl: {classes: [a, b], per_class: 100}",
    ],
)
def test_values_that_agree_pass(tmp_path, text):
    assert isinstance(read(tmp_path, text), Params)


def test_params_do_not_change_after_reading(tmp_path):
    params = read(tmp_path, "")
    with pytest.raises(ValidationError, match="frozen"):
        params.crawl = None
    with pytest.raises(ValidationError, match="frozen"):
        params.crawl.seed = 3


def test_every_parameter_says_what_it_is():
    for section in Params.model_fields.values():
        for name, field in section.annotation.model_fields.items():
            assert field.description, name
