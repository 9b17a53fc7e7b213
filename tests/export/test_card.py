"""The model card says what was measured, and shows hostile text as text."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import yaml
from markdown_it import MarkdownIt

from kd3_pipeline.crawlsummary import CrawlSummary
from kd3_pipeline.export.card import Facts, Licence, model_card, plain_markdown
from kd3_pipeline.export.provenance import History
from kd3_pipeline.metrics import Metrics
from tests.export.world import CONFIG, MADE, METRICS, NAMES, measured

CHECKS = {
    "input": "uint8",
    "images": {"web": 150, "noise": 106},
    "files": [
        {
            "file": name,
            "bytes": 380_000,
            "runtime": "torch 2.15.0",
            "max_difference": 2.4e-7,
            "of_spread": 5e-7,
            "same_class": 1.0,
        }
        for name in ("model.safetensors", "model.onnx", "model.pt2")
    ],
    "left_out": [],
    "tried": [],
    "int8": None,
}
WAY = History(4800, 4000, {"near-duplicate": 370, "leaked": 8}, 3622, 104, 3000)
HOSTILE = ["<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "`x` | y\n## z", "www.a.io"]


def facts(metrics: dict = METRICS) -> Facts:
    read = Metrics.model_validate_json(json.dumps(metrics))
    told = [(text, 9 - place) for place, text in enumerate(HOSTILE)]
    return Facts(CONFIG, read, CHECKS, WAY, [*told, ("", 1)], told, Licence())


def front(card: str) -> dict:
    """The metadata as the hub cuts it out."""
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.S)[1])


def test_the_metadata_is_yaml_with_the_accuracy() -> None:
    licence = Licence("other", "mit: x\n---", "https://terms.example/<b>")
    found = front(model_card(replace(facts(measured(top5=0.99)), licence=licence)))
    assert (found["license"], found["license_name"]) == ("other", "mit: x ---")
    assert found["license_link"] == "https://terms.example/<b>"
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["name"] == "wild|life.parquet"
    assert [one["value"] for one in result["metrics"]] == [0.8667, 0.99]
    assert "license" not in front(model_card(facts()))


def test_no_markup_comes_from_names_licences_and_hosts() -> None:
    card = model_card(facts()).split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable(["table"]).parse(card)
    kinds = [child.type for token in tokens for child in token.children or []]
    assert not {"html_inline", "link_open", "image"} & set(kinds)
    assert not [token for token in tokens if token.type == "html_block"]
    headings = [
        after.content
        for token, after in pairwise(tokens)
        if token.type == "heading_open" and token.tag == "h2"
    ]
    assert headings == [
        "Classes",
        "How good it is",
        "What it learnt from",
        "How to use it",
        "Where it was tried",
        "Limits",
        "Citation",
    ]
    shown = [
        "".join(child.content for child in token.children)
        for token in tokens
        if token.type == "inline"
    ]
    for text in (*NAMES, *HOSTILE):
        assert text.replace("\n", " ") in shown


def test_text_from_the_web_stays_in_its_line() -> None:
    assert plain_markdown("a\r\nb\u2028c\x1b[2J\u202ed") == "a  b c \\[2J d"
    assert plain_markdown("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert plain_markdown("1. *x*_y_") == "1\\. \\*x\\*\\_y\\_"


def test_the_figures_are_those_of_the_metrics() -> None:
    full = measured(top5=0.99, temperature=1.372) | {
        "leaked": 8,
        "contaminated": 2,
        "corruption_error": {"teacher": 0.2, "student": 0.3, "relative": 148.6},
    }
    card = model_card(facts(full))
    for said in (
        "| accuracy | 86.7% | 90.0% |",
        "| 95% interval | 78.0% to 92.0% | 82.0% to 95.0% |",
        "Teacher minus student: 3.33 points (95% interval -1.20 to 7.90)",
        "by 1.372 before the softmax",
        "with it the expected calibration error is 1.1%, without 4.3%.",
        "found in the crawl and dropped: 8.",
        "those that trained the student: 2.",
        "149% as often",
        "| used in an epoch or more | 3,000 |",
        "on 150 web images and 106 of noise",
        "| `model.onnx` | 0.38 | torch 2\\.15\\.0 | 2.4e-07 | 5.0e-07 | 100.0% |",
    ):
        assert said in card, said
    assert "/home/someone" not in card


def test_a_temperature_is_recommended_only_where_it_helps() -> None:
    for tempered, says, not_said in (
        (0.011, "Divide the logits by 1.372", "as they are"),
        (0.08, "Take the logits as they are", "Divide"),
        (0.03, "Take the logits as they are", "Divide"),
    ):
        figures = measured(temperature=1.372, ece=0.03, ece_tempered=tempered)
        card = model_card(facts(figures))
        assert says in card and not_said not in card
        assert f"{tempered:.1%}" in card and "3.0%" in card


def test_the_card_claims_nothing_of_the_teachers_training_that_nobody_looked_at() -> None:
    card = model_card(facts())
    assert "without reading a label" in card
    assert "Whether the teacher had been trained on any of these\nimages was not looked at" in card
    assert "neither the teacher's training data" not in card


def test_what_the_figures_should_not_be_read_without_stands_beside_them() -> None:
    doubt = "the teacher is right on 0.2% of 500 test images <b>: it is at chance"
    card = model_card(facts(METRICS | {"warnings": [doubt]}))
    (line,) = [one for one in card.splitlines() if one.startswith("**Mind:**")]
    assert "it is at chance" in line and "<b>" not in line
    assert card.index(line) < card.index("Teacher minus student")
    assert "**Mind:**" not in model_card(facts())


def test_what_was_not_measured_is_not_told() -> None:
    card = model_card(facts())
    assert "were not looked for in the crawl" in card
    assert "was not looked at." in card
    assert "None" not in card.replace("run(None", "")
    assert "No temperature was fitted" in card
    for absent in ("top-5", "corrupted", "8 bits", "before the softmax"):
        assert absent not in card
    assert "\n\n\n" not in card


def test_quantisation_is_told_with_its_cost() -> None:
    int8 = {"scheme": "static", "calibrated_on": 256, "student_accuracy": 0.866, "accuracy": 0.851}
    small = CHECKS["files"][1] | {"file": "model-int8.onnx"}
    with_it = CHECKS | {"int8": int8, "files": [*CHECKS["files"], small]}
    card = model_card(replace(facts(), checks=with_it))
    assert "(static ranges, from 256 other web images)" in card
    assert re.search(r"right on\s85.1% of the images, the student on 86.6%", card)


def test_what_was_left_out_and_where_it_does_not_run_is_told() -> None:
    int8 = {"scheme": "static", "calibrated_on": 256, "student_accuracy": 0.866, "accuracy": 0.4}
    far = {"file": "model-int8.onnx", "same_class": 0.41, "of_spread": 3.2, "agrees": False}
    tried = [
        {"file": "model.onnx", "runtime": "ncnn 1.0", "agrees": False, "error": "`no` <layer>"},
        far | {"file": "model.onnx", "runtime": "mnn 3", "max_difference": 25.0, "error": ""},
        far
        | {"file": "model.onnx", "runtime": "x", "max_difference": None, "of_spread": None}
        | {"error": ""},
    ]
    changes = {"left_out": [far], "tried": tried, "int8": int8}
    card = model_card(replace(facts(), checks=CHECKS | changes))
    assert "`model-int8.onnx` was made and is not here" in card and "on 41.0% of the web" in card
    assert "up to 3.2e+00 spreads" in card and "right on" not in card
    assert "does not run in ncnn 1\\.0: \\`no\\` &lt;layer&gt;." in card
    assert "| mnn 3: **not the student** | 2.5e+01 | 3.2e+00 | 41.0% |" in card
    assert "| no number | no number |" in card and "\n\n\n" not in card


def test_what_was_wanted_and_what_owners_say_is_in_the_card_and_hostile_text_is_text() -> None:
    classes = [
        {"name": HOSTILE[0], "stored": 35, "wanted": 1000, "why": HOSTILE[2]},
        {"name": "dog", "stored": 1000, "wanted": 1000},
        *({"name": f"c{n}", "stored": 999, "wanted": 1000} for n in range(41)),
    ]
    told = {
        "classes": classes,
        "later": {"images": 338, "pages": 2},
        "signals": {"seen": {HOSTILE[1]: 9}, "refused": {"c2pa": 2}},
        "outcomes": {"blocked": 4, "forgotten": 3},
    }
    card = model_card(replace(facts(), harvest=CrawlSummary.model_validate(told)))
    tokens = MarkdownIt("commonmark").enable(["table"]).parse(card.split("---\n", 2)[2])
    assert not [token for token in tokens if token.type == "html_block"]
    kinds = [child.type for token in tokens for child in token.children or []]
    assert not {"html_inline", "link_open", "image"} & set(kinds)
    cells = [token.content for token in tokens if token.type == "inline"]
    shown = ["".join(child.content for child in token.children) for token in tokens
             if token.type == "inline"]  # fmt: skip
    at = shown.index(HOSTILE[0])
    assert shown[at : at + 4] == [HOSTILE[0], "1,000", "35", HOSTILE[2].replace("\n", " ")]
    at = shown.index(HOSTILE[1])
    assert shown[at : at + 6] == [HOSTILE[1], "9", "0", "c2pa", "0", "2"]
    text = "\n".join(cells)
    assert "1 of 43 classes have all images" in text
    assert "2 more classes have fewer than wanted" in text
    assert "338 images and 2 pages of results were refused for the moment" in text
    assert "Candidates that a blocklist refused: 4." in text
    assert "Candidates whose images were dropped on request: 3." in text


def test_weights_of_a_network_of_ones_own_say_which_code_they_need() -> None:
    assert "allow(" not in model_card(facts())
    own = {"backbone": "nets.py:Small", "teacher": {"name": "nets.py:Net"}}
    card = model_card(replace(facts(), config=replace(CONFIG, architecture=own)))
    assert 'allow("nets.py:Small")\nallow("nets.py:Net")\nnetwork, config = load_student' in card
    assert "it runs code that does not come with it" in card


def test_a_card_of_an_earlier_crawl_says_nothing_of_what_is_not_known() -> None:
    old = CrawlSummary.model_validate({"classes": [{"name": "cat", "stored": 5}]})
    assert model_card(replace(facts(), harvest=old)) == model_card(facts())


def test_the_card_says_when_as_whom_and_under_what_rules_images_were_fetched() -> None:
    about = replace(facts(), made=MADE, fetched=("2026-05-04", "2026-05-09"))
    card = model_card(about)
    assert "by kd3\\-pipeline 0\\.1\\.0, under the user agent Mozilla" in card
    assert "<b>" not in card
    assert "robots.txt was obeyed; the opt-outs that were obeyed: tdm\\-reservation." in card
    assert "from 2026\\-05\\-04 to 2026\\-05\\-09 (UTC)" in card
    careless = MADE | {"robots": False, "opt_outs": []}
    card = model_card(replace(about, made=careless, fetched=("2026-05-04",) * 2))
    assert "robots.txt was **not obeyed**; **no other opt-outs were obeyed**." in card
    assert "on 2026\\-05\\-04 (UTC)" in card
    assert "read from files" in model_card(replace(about, made=MADE | {"robots": None}))
    assert "is not stated" in model_card(facts())


def test_creators_to_credit_are_named_and_the_rest_counted() -> None:
    creators = [(f"[{number}](https://evil.example)", "CC BY", 50 - number) for number in range(42)]
    card = model_card(replace(facts(), creators=creators, uncredited=3))
    assert card.count("| CC BY |") == 40
    assert "](https://evil" not in card.replace("\\]\\(", "")
    assert "2 more are in `sources.parquet`" in card
    assert "3 images with such a licence came without a creator" in card
