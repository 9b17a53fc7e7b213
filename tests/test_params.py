import pytest
from pydantic import ValidationError

from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Crawl, Distill, Params
from kd3_pipeline.registry import OBJECTIVES, Entry, OneOf, Registry


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
    "written",
    [
        *("star", "[star, ring]", "{star: [a star, stars], ring: []}", "yes, no"),
        *("{star: a star, ring: }", "{star: {queries: [a star], synonyms: [], contexts: [x]}}"),
    ],
)
def test_classes_come_in_several_forms(tmp_path, written):
    assert read(tmp_path, f"crawl: {{classes: {written}}}" if written[0] in "[{" else
                f"crawl:\n  classes: {written}").crawl.classes  # fmt: skip


ELSEWHERE = (
    "no parameter any more, since no result depends on it: take the line out, and say it with"
    " `pipeline --engine processes:N` or PIPELINE_ENGINE"
)
WRONG = [  # a kind of message each: (text, the one line that it gives)
    ("dedup:\n  workers: 2", f"2: dedup.workers: {ELSEWHERE}"),
    ("embed: {workers: 0}", f"1: embed.workers: {ELSEWHERE}"),
    ("distill: {epohcs: 3}", "1: distill.epohcs: unknown key 'epohcs'; did you mean 'epochs'?"),
    ("\n\ncrawl:\n  sead: 3", "4: crawl.sead: unknown key 'sead'; did you mean 'seed'?"),
    ("zzz: 3", f"1: zzz: unknown key 'zzz'; known keys: {', '.join(Params.model_fields)}"),
    (
        "crawl: {2: 3}",
        f"1: crawl.2: unknown key '2'; known keys: {', '.join(Crawl.model_fields)}",
    ),
    ("distill:\n  epochs: many", "2: distill.epochs: expected a whole number, got 'many'"),
    ("distill:\n  epochs: 0", "2: distill.epochs: expected at least 1, got 0"),
    ("distill:\n  cutoff: 0", "2: distill.cutoff: expected more than 0.0, got 0"),
    ("distill:\n  momentum: 1", "2: distill.momentum: expected less than 1.0, got 1"),
    ("distill:\n  cutoff: true", "2: distill.cutoff: expected a number, got True"),
    ("distill:\n  cutoff: .nan", "2: distill.cutoff: expected a finite number, got nan"),
    ("distill:\n  flip: yes", "2: distill.flip: expected true or false, got 'yes'"),
    ("distill:\n  student: 8", "2: distill.student: expected text, got 8"),
    ("embed:\n  fit: 3", "2: embed.fit: expected one of crop, squash, got 3"),
    (
        "distill:\n  objective: simkt",
        f"2: distill.objective: expected one of {', '.join(OBJECTIVES.entries)}, got 'simkt';"
        " did you mean 'simkd'?",
    ),
    (
        "dedup:\n  radius: 17",
        "2: dedup.radius: expected a whole number from 0 to 16, or auto, got 17",
    ),
    ("distill:\n  lr: best", "2: distill.lr: expected a number above 0, or auto, got 'best'"),
    (
        "crawl:\n  opt_outs: true",
        "2: crawl.opt_outs: expected all, none, or a list of some of x-robots-tag, tdm-reservation,"
        " content-signal, content-usage, rsl, data-mining, c2pa, got True; it is all now",
    ),
    (
        "crawl:\n  opt_outs: false",
        "2: crawl.opt_outs: expected all, none, or a list of some of x-robots-tag, tdm-reservation,"
        " content-signal, content-usage, rsl, data-mining, c2pa, got False; it is none now",
    ),
    (
        "crawl:\n  opt_outs: [x]",
        "2: crawl.opt_outs: expected all, none, or a list of some of x-robots-tag, tdm-reservation,"
        " content-signal, content-usage, rsl, data-mining, c2pa, got ['x']",
    ),
    (
        "crawl:\n  classes: 3",
        "2: crawl.classes: expected a set's name, names, or names with lists of queries, got 3",
    ),
    (
        "crawl:\n  classes:\n    cat: 3",
        "3: crawl.classes.cat: expected a list of words to search for, got 3",
    ),
    (
        "crawl:\n  classes:\n    cat:\n      synonims: [feline]",
        "4: crawl.classes.cat.synonims: unknown key 'synonims'; did you mean 'synonyms'?",
    ),
    ("teacher:\n  mean: 1", "2: teacher.mean: expected a list of three numbers, got 1"),
    ("teacher:\n  mean: [0, 1]", "2: teacher.mean.2: expected three numbers, got [0, 1]"),
    ("teacher:\n  std: [0, 1, 1]", "2: teacher.std.0: expected more than 0.0, got 0"),
    (
        "teacher:\n  class_names: 3",
        "2: teacher.class_names: expected names, or the path of a file of them, got 3",
    ),
    ("teacher:\n  sha256: x", "2: teacher.sha256: expected 8 to 64 hexadecimal digits, got 'x'"),
    ("distill: 3", "1: distill: expected a section with keys, got 3"),
    (
        "distill:\n  # epochs: 3",
        "1: distill: expected a section with keys, or {} for its defaults, got None",
    ),
    ("distill: {lr: 1}\ndistill: {lr: 2}", "2: distill: given twice, first at params.yaml:1"),
    ("dedup:\n  radius: 1\n  radius: 2", "3: dedup.radius: given twice, first at params.yaml:2"),
    ("crawl:\n\tseed: 1", "2: not YAML: found character '\\t' that cannot start any token"),
    ("a: 1\nb: \x07", "2: not YAML: special characters are not allowed"),
    ("- crawl", "1: expected sections such as `crawl:`, got ['crawl']"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line.split(" got")[0] for _, line in WRONG])
def test_a_wrong_file_gives_exactly_one_line(tmp_path, text, line):
    assert problems(tmp_path, text) == [f"params.yaml:{line}"]


@pytest.mark.parametrize(
    "written", ["3.5", "1e2", "true", "", "'3'", "1_000", "1:30", "99999999999999999999.5"]
)
def test_nothing_is_taken_for_a_whole_number_that_is_none(tmp_path, written):
    (line,) = problems(tmp_path, f"distill:\n  epochs: {written}")
    assert line.startswith("params.yaml:2: distill.epochs: expected a whole number, got ")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\ncrawl: {seed: 1",
        "a: 1\n? [b]\n: 2",
        "a: 1\n---\nb: 2",
        "b: 1\na: !!python/object:os.system x",
        "b: 1\na: *b",
    ],
)
def test_what_is_not_yaml_says_in_which_line(tmp_path, text):
    (line,) = problems(tmp_path, text)
    assert line.startswith("params.yaml:2: not YAML: ")


@pytest.mark.parametrize(
    "text", ["crawl: &a\n  b: *a", "crawl: " + "[" * 3000, "crawl: {seed: " + "9" * 5000 + "}"]
)
def test_yaml_without_end_is_one_line_too(tmp_path, text):
    (line,) = problems(tmp_path, text)
    assert line.startswith("params.yaml: not YAML: ")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^params.yaml not found in .*pipeline init FOLDER"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("data", [b"crawl: \xff\xfe", "crawl: é".encode("utf-16")])
def test_a_file_that_is_not_utf_8_is_refused(tmp_path, data):
    (line,) = problems(tmp_path, data)
    assert line == "params.yaml:1: not UTF-8: byte 0xff: save it as UTF-8"


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


@pytest.mark.parametrize(
    "contact", ["a\\r\\nX-Evil: 1", "a\\tb", "\\e[31m", "\\x9b", "\\u2028", "x" * 301]
)
def test_a_contact_that_no_header_may_have_is_an_error(tmp_path, contact):
    with pytest.raises(UserError, match=r"crawl\.contact: it has"):
        read(tmp_path, f'crawl: {{contact: "{contact}"}}')


@pytest.mark.parametrize("contact", ["山田\u3000太郎", "Jürgen <a@bücher.example>", "x" * 300])
def test_a_contact_may_have_letters_of_any_script(tmp_path, contact):
    assert read(tmp_path, f'crawl: {{contact: "{contact}"}}').crawl.contact == contact


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
    ("distil.epochs=3", "--set: distil: unknown key 'distil'; did you mean 'distill'?"),
    ("distill.epochs", "--set distill.epochs: expected key.path=value"),
    ("distill.lr.x=3", "--set distill.lr.x=3: distill.lr is not a section"),
    ("distill={cutoff: x}", "--set: distill.cutoff: expected a number, got 'x'"),
]


@pytest.mark.parametrize(("override", "line"), WRONG_OVERRIDES)
def test_a_wrong_override_says_so_instead_of_a_line(tmp_path, override, line):
    assert problems(tmp_path, "distill:\n  lr: 3\n", override) == [line]


# values that are wrong together

CONFLICTS = [
    ("crawl: {engine: files}", "1: crawl.source: engine 'files' needs"),
    (
        "crawl:\n  source: x",
        "2: crawl.source: only engines files, urls, site, captions read it, not 'auto'",
    ),
    (
        "crawl: {engine: captions}",
        "1: crawl.source: engine 'captions' needs a .parquet, .csv or .tsv of captions and"
        " addresses, a folder, or a pattern here",
    ),
    (
        "crawl: {engine: captions, source: x, sample: 5}",
        "1: crawl.sample: only engines files, urls, site use it, not 'captions'",
    ),
    ("crawl:\n  sample: 5", "2: crawl.sample: only engines files, urls, site use it, not 'auto'"),
    ("crawl: {columns: {image: x}}", "1: crawl.columns: only engine files uses it, not 'auto'"),
    ("teacher: {source: hub}", "1: teacher.repository: source 'hub' needs owner/name:commit"),
    (
        "teacher:\n  source: torch.hub\n  repository: a/b:c",
        "1: teacher.weights: source 'torch.hub' needs the name of a function",
    ),
    ("teacher: {source: timm}", "1: teacher.weights: source 'timm' needs the name of the weights"),
    ("teacher: {weights: y}", "1: teacher.weights: source 'train' does"),
    ("teacher: {mean: [-0.1, 0, 0]}", "1: teacher.mean: expected numbers from 0 to 1"),
    (
        "teacher: {source: file, path: x, channels: 1, mean: [0.1, 0.2, 0.1]}",
        "1: teacher.mean: with teacher.channels 1 it is one number three times, as [0.1, 0.1, 0.1]",
    ),
    ("teacher: {channels: 1}", "1: teacher.channels: source 'train' trains on RGB"),
    (
        "teacher: {source: file, path: x, channels: 1, order: bgr}",
        "1: teacher.order: one channel has no order",
    ),
    ("teacher: {source: file, path: x.pt, repository: y}", "1: teacher.repository: only sources"),
    ("teacher:\n  sha256: 0a23456789", "2: teacher.sha256: source 'train' has no file"),
    (
        "teacher: {source: hub, repository: a/b, path: x}",
        "1: teacher.path: only source 'file' reads it, not 'hub'",
    ),
    (
        "crawl: {engine: urls, source: x.csv, rounds: 1}",
        "1: crawl.rounds: only search engines can be asked for more, not 'urls'",
    ),
    ("teacher: {source: file}", "1: teacher.path: source 'file' needs"),
    ("distill:\n  alignment: false", "1: distill.logit_weight: without alignment it has to be"),
    ("distill: {keep: agreement, held_out: 0}", "1: distill.held_out: keep 'agreement' needs"),
    ("distill: {skip_redundant: true}", "1: distill.skip_redundant: needs embed.redundant above 0"),
    ("export: {int8: dynamic, formats: [torch]}", "1: export.int8: quantises the ONNX file"),
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


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
            ["mean: [123.675, 116.28, 103.53] is of pixels from 0 to 255", "[0.485, 0.456, 0.406]"],
        ),
        ([0.4, 0.4, 0.4], [57, 57, 57], ["it is [0.224, 0.224, 0.224]"]),
        ([104, 117, 123], [1, 1, 1], ["[0.408, 0.459, 0.482]", "[0.00392, 0.00392, 0.00392]"]),
        ([300, 0, 0], [1, 1, 1], ["teacher.mean: expected numbers from 0 to 1"]),
    ],
)
def test_a_normalisation_of_bytes_is_answered_with_the_division(tmp_path, mean, std, said):
    path = tmp_path / "params.yaml"
    path.write_text(f"teacher: {{source: file, path: x, mean: {mean}, std: {std}}}")
    with pytest.raises(UserError) as caught:
        read_params(path)
    assert all(one in str(caught.value) for one in said)


def test_a_deviation_that_can_be_of_no_bytes_is_not_divided(tmp_path):
    """As where the mean alone is set, and the deviation left as it is."""
    found = problems(tmp_path, "teacher: {source: file, path: x, mean: [124, 116, 104]}")
    assert [line.split(": ")[1] for line in found] == ["teacher.mean"]


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
        "teacher: {images: auto, batch_size: 4000}\nevaluate: {images: auto}",
        "teacher: {data: mine, images: auto, batch_size: 5000}",
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


def test_a_new_name_in_a_registry_is_a_word_that_its_parameter_takes(tmp_path):
    for name in OBJECTIVES.entries:
        assert read(tmp_path, f"distill: {{objective: {name}, logit_weight: 1}}")
    (of,) = [one for one in Distill.model_fields["objective"].metadata if isinstance(one, OneOf)]
    assert of.words == tuple(OBJECTIVES.entries)


def test_a_registry_says_what_its_names_mean_and_loads_their_classes():
    found = Registry("kd3_pipeline", {"a": Entry("params:Crawl", "one"), "b": Entry("x:Y", "two")})
    assert found.meanings() == "`a`: one; `b`: two"
    assert found.load("a") is Crawl
    with pytest.raises(KeyError):
        found.load("c")


@pytest.mark.parametrize("tag", ["!!bool maybe", "!!timestamp maybe", '!!int ""', "!!float x"])
def test_a_tag_that_does_not_fit_is_one_line(tmp_path, tag):
    (line,) = problems(tmp_path, f"crawl: {{per_class: {tag}}}")
    assert line.startswith("params.yaml: not YAML: ")


def test_aliases_of_aliases_are_counted_before_they_are_written_out(tmp_path):
    lines = ["a0: &a0 {x: 1}"]
    for at in range(1, 12):
        lines.append(f"a{at}: &a{at} {{{', '.join(f'k{key}: *a{at - 1}' for key in range(10))}}}")
    (line,) = problems(tmp_path, "\n".join(lines))
    assert "its aliases stand for over 2,000,000 values" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crawl:\n  per_class: 1" + "0" * 400, "params.yaml:2: crawl.per_class: expected at most"),
        ('teacher:\n  path: "a\\0b"', r"params.yaml:2: teacher.path: it has the character \x00"),
        ('crawl:\n  classes: ["a\\ud800"]', r"crawl.classes: it has the character \ud800"),
        ('crawl:\n  classes: {cat: {queries: ["\\0"]}}', "crawl.classes: it has the character"),
        ("evaluate:\n  test_set: a/" + "ä" * 128, "evaluate.test_set: a name of more than 255"),
        (
            "teacher:\n  data: s3://a/b",
            "params.yaml:2: teacher.data: s3://a/b: addresses of storage",
        ),
        ("evaluate:\n  test_set: gs://a", "are not read here: bring it to a disk (`dvc pull`, or"),
        ("crawl:\n  classes: [true, cat]", "got [True, 'cat']; a name such as True needs quotes"),
        ("crawl:\n  classes: {1: [cat]}", "a name such as 1 needs quotes"),
    ],
)
def test_a_value_that_no_stage_could_use_is_told_with_what_to_write(tmp_path, text, said):
    lines = problems(tmp_path, text)
    assert any(said in line for line in lines), lines
