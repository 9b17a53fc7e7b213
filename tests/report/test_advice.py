"""What now: each sentence from a run that calls for it, and none from one that does not."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kd3_pipeline.metrics import Group, Metrics, read_metrics
from kd3_pipeline.report.advice import MOST, Run, what_now
from kd3_pipeline.report.costs import not_cheap
from kd3_pipeline.report.inputs import Curves
from kd3_pipeline.report.page import ReportFiles, build_report
from kd3_pipeline.report.stored import Images, read_images
from tests.report.world import HOSTILE_CLASS, World


@pytest.fixture(scope="module")
def metrics(small: ReportFiles) -> Metrics:
    return read_metrics(small.metrics)


@pytest.fixture(scope="module")
def calm(small: ReportFiles, metrics: Metrics) -> Run:
    """A run of which nothing is to be said."""
    return Run(
        metrics=metrics,
        seen=np.full(3, 50),
        images=replace(read_images(small.dedup, small.selection), held_out=0),
        confusions=Counter(),
        curves=Curves([], {}, ()),
        apart=0,
        shown={},
    )


def agreeing(*values: float) -> Curves:
    return Curves(list(range(len(values))), {"agreement": list(values)}, ())


def held_out(run: Run, count: int) -> Images:
    return replace(run.images, held_out=count)


def test_nothing_is_said_where_nothing_is_to_be_done(calm: Run) -> None:
    assert what_now(calm) == []


@pytest.mark.parametrize(
    ("seen", "named"), [([120, 25, 26], "star"), ([120, 25, 90], HOSTILE_CLASS), ([50] * 3, None)]
)
def test_of_classes_with_few_images_the_one_that_lost_most_is_named(
    calm: Run, metrics: Metrics, seen: list[int], named: str | None
) -> None:
    per_class = tuple(
        Group(name=name, images=30, teacher=0.9, student=student)
        for name, student in zip(metrics.class_names, (0.9, 0.4, 0.2), strict=True)
    )
    changed = metrics.model_copy(update={"per_class": per_class})
    said = what_now(replace(calm, metrics=changed, seen=np.array(seen)))
    assert bool(said) == (named is not None)
    if named == "star":
        assert said[0].startswith(
            "<bdi>star</bdi> starves: the teacher sees it in 26 of 171 images"
        )
        assert "right on 20.0% of it, the teacher on 90.0% (1 more such class)" in said[0]
    elif named:
        assert "&lt;script&gt;" in said[0] and "<script>" not in said[0]


def test_a_dumping_ground_is_named_with_what_it_takes_in(calm: Run) -> None:
    names = [f"class {at}" for at in range(10)]
    spread_out = Counter({(a, b): 3 for a in names for b in names})
    many = calm.metrics.model_copy(update={"class_names": tuple(names)})
    assert what_now(replace(calm, metrics=many, confusions=spread_out, seen=np.full(10, 9))) == []
    dump = spread_out + Counter({(one, "class 4"): 60 for one in names[:3]})
    (said,) = what_now(replace(calm, metrics=many, confusions=dump, seen=np.full(10, 9)))
    assert said.startswith("<bdi>class 4</bdi> is a dumping ground: the student says it of 207 tes")
    assert "(<bdi>class 0</bdi> 63, <bdi>class 1</bdi> 63, <bdi>class 2</bdi> 63), 46% of" in said


@pytest.mark.parametrize(
    ("curves", "count", "said"),
    [
        (
            agreeing(0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.85, 0.9),
            400,
            "still rose, from 72.5% to 87.5%",
        ),
        (agreeing(0.1, 0.5, 0.9, 0.9, 0.91, 0.9, 0.9, 0.905), 400, "is level, from 90.5% to 90.3%"),
        (agreeing(0.1, 0.5, 0.6, 0.6, 0.6, 0.61, 0.6, 0.6), 27, "cannot be told by 27 held-out"),
        (agreeing(0.1, 0.9), 400, ""),
        (agreeing(0.1, 0.3, 0.5, 0.6), 0, ""),
    ],
)
def test_what_a_longer_run_would_bring(calm: Run, curves: Curves, count: int, said: str) -> None:
    found = what_now(replace(calm, curves=curves, images=held_out(calm, count)))
    assert len(found) == bool(said) and said in "".join(found)


def test_the_images_to_look_at_are_linked(calm: Run) -> None:
    shown = {"disagreements": 9, "off-topic": 51, "mistakes": 30}
    (said,) = what_now(replace(calm, apart=9, shown=shown))
    for key in shown:
        assert f'href="#{key}"' in said
    assert "(9 of 51 images)" in said
    (less,) = what_now(replace(calm, apart=0, shown={"mistakes": 30}))
    assert "disagreements" not in less and "off-topic" not in less


def test_leaks_that_nobody_looked_for_are_told(calm: Run, metrics: Metrics) -> None:
    unknown = metrics.model_copy(update={"leaked": None, "contaminated": None})
    (said,) = what_now(replace(calm, metrics=unknown))
    assert "set <code>dedup.leaks</code>" in said


@pytest.mark.parametrize(
    ("macs", "slower", "said"),
    [
        ({"teacher": 100, "student": 112}, {"teacher": 1.0, "student": 2.0}, "1.12 times the mult"),
        ({"teacher": 100, "student": 50}, {"teacher": 1.0, "student": 2.0}, "it takes 2.0 times"),
        ({"teacher": 100, "student": 50}, {"teacher": 1.0, "student": 1.05}, ""),
        ({"teacher": 100, "student": 100}, {"teacher": 2.0, "student": 1.0}, "takes 1.00 times"),
    ],
)
def test_a_small_student_that_costs_as_much_as_its_teacher_is_told(
    tmp_path: Path, macs: dict[str, int], slower: dict[str, float], said: str
) -> None:
    files = World(macs=macs, slower=slower).write(tmp_path)
    html = build_report(files, thumbnails=0, map_images=0)
    told = not_cheap(read_metrics(files.metrics))
    assert bool(told) == bool(said) and said in told
    assert html.count(told) == 2 or not told  # in the advice, and with the costs
    if slower["student"] == 2.0:
        assert "2.0 times the time for a batch of 1 (cpu)" in told
        assert "× 2<" in html


def test_no_more_than_five_are_said(calm: Run, metrics: Metrics) -> None:
    worst = metrics.model_copy(
        update={
            "per_class": (Group(name="star", images=30, teacher=0.9, student=0.1),),
            "class_names": (*(f"class {at}" for at in range(9)), "star"),
            "student": metrics.student.model_copy(update={"macs": 10**9}),
            "leaked": None,
            "contaminated": None,
        }
    )
    run = Run(
        metrics=worst,
        seen=np.array([100] * 9 + [1]),
        images=held_out(calm, 400),
        confusions=Counter({("star", "class 1"): 30}),
        curves=agreeing(0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.85, 0.9),
        apart=9,
        shown={"disagreements": 9},
    )
    assert len(what_now(run)) == MOST == 5


def test_warnings_of_embed_and_evaluate_stand_at_the_top(tmp_path: Path) -> None:
    world = World(warnings=["the student <b>"], embed_warnings=["starved: & more"])
    html = build_report(world.write(tmp_path), thumbnails=1, map_images=0)
    banner = html.split('role="alert"')[1].split("</div>")[0]
    assert banner.index("Starved: &amp; more") < banner.index("The student &lt;b&gt;")
    assert html.index('role="alert"') < html.index("What now") < html.index("<nav")
