"""What the page is a report of: first on it, and as params.yaml has it."""

import json
import re
from html import unescape
from pathlib import Path

from kd3_pipeline.params import Params
from kd3_pipeline.report.identity import Identity, Parameter, parameters_of, seeds_of
from kd3_pipeline.report.page import ReportFiles, build_report
from tests.report.world import HOSTILE_CLASS, HOSTILE_TITLE, World

GIVEN = Identity(
    project="foxes",
    made="2026-11-30T10:40+00:00",
    version="9.8.7",
    command="pipeline report --set report.seed=3",
    parameters=(Parameter("crawl.contact", HOSTILE_TITLE, '""'),),
    seeds=((0, ("distill",)), (3, ("report",))),
)


def top(html: str) -> str:
    """The text before the sections, with single spaces."""
    part = re.sub(r"</?bdi>", "", html.split("<main>")[0].split("<body>")[1])
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", part)).split())


def test_the_identity_comes_before_all_figures(small: ReportFiles) -> None:
    html = build_report(small, GIVEN, thumbnails=1, map_images=0)
    text = top(html)
    said = [
        "Distillation report of foxes",
        f"Classes 3: circle, {HOSTILE_CLASS}, star",
        "Teacher and student resnet20, resnet8",
        "Made 2026-11-30 10:40 UTC",
        "Version kd3-pipeline 9.8.7",
        "Seed 0 (distill); 3 (report)",
        "Command pipeline report --set report.seed=3",
        "1 parameter other than the defaults",
        f"crawl.contact {HOSTILE_TITLE}",
        "The student is right on",
        "What now",
    ]
    places = [text.index(one) for one in said]
    assert places == sorted(places)
    assert "<title>foxes: distillation report" in html


def test_many_classes_are_counted_and_some_named(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(30)]
    files = World(class_names=names, test_images=600).write(tmp_path)
    text = top(build_report(files, GIVEN, thumbnails=0, map_images=0))
    assert "Classes 30: class 0, class 1," in text and "class 11 and 18 more" in text


def test_parameters_are_those_that_differ_and_seeds_say_where() -> None:
    changed = {"crawl": {"classes": ["red fox", "hare"]}, "distill": {"lr": 0.3, "seed": 7}}
    values = Params.model_validate(changed).model_dump(mode="json")
    defaults = Params().model_dump(mode="json")
    assert parameters_of(values, defaults) == (
        Parameter("crawl.classes", '["red fox", "hare"]', "shapes10"),
        Parameter("distill.lr", "0.3", json.dumps(Params().distill.lr)),
        Parameter("distill.seed", "7", "0"),
    )
    seeds = dict(seeds_of(values))
    assert seeds[7] == ("distill",) and "report" in seeds[0]
    assert list(seeds) == [0, 7]
    assert Identity(seeds=seeds_of(defaults)).seed == "0"


def test_a_page_of_which_nothing_else_is_known_says_nothing_of_it(html: str) -> None:
    text = top(html)
    assert "Version" not in text and "parameters other" not in text
    assert text.startswith("Skip to the summary Distillation report Classes 3: ")
