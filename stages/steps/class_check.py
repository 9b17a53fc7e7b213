"""Classes of the crawl and of the test set beside the teacher's, before anything is crawled."""

from collections.abc import Sequence
from pathlib import Path

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import Console, listed
from kd3_pipeline.errors import PipelineError
from kd3_pipeline.evaluate.styles import load_styles
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import (
    LabelledImages,
    Reading,
    check_classes,
    load_labelled,
    to_be_downloaded,
)
from kd3_pipeline.labelled.names import unnamed
from kd3_pipeline.params import Crawl, Evaluate
from kd3_stages.steps.findings import Finding, wrong
from kd3_stages.steps.teacher_labels import matched

SHOWN = 5  # class names
FEW = 4  # images of a style, which show whether its classes are known
WITHOUT_CLASSES = ("site", "files")  # engines that find images of whatever is there


def asked_for(crawl: Crawl, names: Sequence[str]) -> list[Finding]:
    """Whether the classes that are crawled are those that the teacher tells apart.

    Args:
        names: of the teacher's classes.
    """
    if crawl.engine in WITHOUT_CLASSES or unnamed(names):
        return []
    try:
        wanted = [one.name for one in load_classes(crawl.classes).classes]
    except PipelineError:  # the finding about the crawl says so
        return []
    known = matched(wanted, names)
    unasked = [name for output, name in enumerate(names) if output not in known]
    strange = [name for label, name in enumerate(wanted) if label not in known.values()]
    name, values = "classes asked for", {"unasked": unasked, "unknown": strange}
    if not known:
        text = (
            f"none of crawl.classes ({listed(wanted, SHOWN)}) is a class of the teacher"
            f" ({listed(names, SHOWN)}): it will call all that is crawled by its own names, so name"
            " what it knows"
        )
        return [Finding(name, text, None, values=values, loud=True)]
    told = []
    if unasked:
        told.append(f"{len(unasked):,} of the teacher's are not: {listed(unasked, SHOWN)}")
    if strange:
        told.append(f"{len(strange):,} of them it does not know: {listed(strange, SHOWN)}")
    text = f"{len(known):,} of the teacher's {len(names):,}"
    if told:
        return [Finding(name, f"{text}; {'; '.join(told)}", None, values=values)]
    return [Finding(name, text, values=values)]


def test_set(
    section: Evaluate, frame: Frame, names: Sequence[str], most: int, console: Console
) -> tuple[LabelledImages | None, Finding | None]:
    """Some images of evaluate.test_set, matched as it will match them, or what is to be said.

    Args:
        names: of the teacher's classes.
        most: images to read.
    """
    try:
        reading = Reading.of(section)
        if to_be_downloaded(section.test_set):
            public = [one.name for one in load_classes(section.test_set).classes]
            check_classes(public, names, section.test_set, reading)
            text = f"not measured: {section.test_set} is downloaded by `pipeline evaluate`"
            return None, Finding("accuracy", text, None)
        count = min(section.drawn or most, most)
        with console.progress("check: reading the test set", count) as advance:
            test = load_labelled(
                section.test_set,
                "test",
                frame,
                count,
                section.seed,
                advance,
                reading=reading,
                class_names=names,
            )
    except PipelineError as error:
        return None, wrong("accuracy", error)
    for note in test.notes:
        console.note(note)
    return test, None


def styles(section: Evaluate, frame: Frame, names: Sequence[str]) -> list[Finding]:
    """Whether evaluate.styles has classes of the teacher, whose names these are."""
    if not section.styles or not Path(section.styles).exists():
        return []  # of one that is not there `light_findings` tells
    try:
        found, _ = load_styles(section.styles, frame, names, reading=Reading.of(section), most=FEW)
    except PipelineError as error:
        return [wrong("styles", error)]
    return [Finding("styles", listed([one.name for one in found], SHOWN))]
