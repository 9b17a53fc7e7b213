"""Conflicts: values of `params.yaml` that are right one by one and wrong together."""

import os
import re
from collections.abc import Iterator, Mapping

from kd3_pipeline.console import LARGEST_WHOLE, printable
from kd3_pipeline.licences import LICENCES, OTHER, close_licences
from kd3_pipeline.params import Crawl, Export, Params, Teacher

Conflict = tuple[str, str]  # key path, and what is wrong there
WITH_SOURCE = {
    "files": "a folder, .tar or .parquet",
    "urls": "a .txt, .csv, .tsv, .jsonl or .parquet of addresses",
    "site": "the address of a page",
    "captions": "a .parquet, .csv or .tsv of captions and addresses, a folder, or a pattern",
}
WITH_SAMPLE = tuple(engine for engine in WITH_SOURCE if engine != "captions")  # not by class
NO_HEADER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
STORAGE = re.compile(r"(s3a?|gs|gcs|az|azure|abfss?|wasbs?|oss|hdfs|webhdfs)://", re.IGNORECASE)
FILES = frozenset(  # parameters that may name a file, or a folder
    {
        *("crawl.classes", "crawl.blocklist", "teacher.path", "teacher.data"),
        *("teacher.architecture", "teacher.class_names", "teacher.repository"),
        *("distill.student", "distill.student_weights"),
        *("evaluate.test_set", "evaluate.class_names", "evaluate.styles"),
    }
)
LONGEST = 255  # bytes of a file's name
LONGEST_CONTACT = 300  # letters; hosts refuse long headers
LIGHTEST = 255  # of a byte
WITH_REPOSITORY = ("torch.hub", "hub")
WITH_WEIGHTS = ("torch.hub", "timm", "torchvision")  # optional for `hub`


def conflicts(params: Params) -> list[Conflict]:
    """All contradictions, in no particular order."""
    return [
        *_values(params),
        *_crawl(params.crawl),
        *_teacher(params.teacher),
        *_embed(params),
        *_distill(params),
        *_export(params.export),
    ]


def _values(params: Params) -> Iterator[Conflict]:
    """Numbers and texts that no stage could do anything with."""
    for section, values in params.model_dump().items():
        for key, value in values.items():
            at = f"{section}.{key}"
            if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
                yield (
                    at,
                    f"expected at most {LARGEST_WHOLE:,}, got one of {len(str(abs(value)))} digits",
                )
            for text in _texts(value):
                if bad := NO_TEXT.search(text):
                    shown = ascii(bad[0]).strip("'")
                    yield at, f"it has the character {shown}, which no name and no file has"
                elif STORAGE.match(text):
                    yield (
                        at,
                        f"{text}: addresses of storage are not read here: bring it to a disk"
                        " (`dvc pull`, or a mount), and give its path",
                    )
                elif (  # a list is of names
                    at in FILES
                    and isinstance(value, str)
                    and any(len(os.fsencode(one)) > LONGEST for one in text.split("/"))
                ):
                    yield at, f"a name of more than {LONGEST} bytes, which no file has"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(key)
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _crawl(crawl: Crawl) -> Iterator[Conflict]:
    if isinstance(crawl.classes, dict):
        from kd3_pipeline.classes.entries import (
            problems,
        )  # its package reads files as params.yaml is

        for path, what in problems(crawl.classes):
            yield f"crawl.classes.{path}", what
    if crawl.engine in WITH_SOURCE and not crawl.source:
        yield "crawl.source", f"engine '{crawl.engine}' needs {WITH_SOURCE[crawl.engine]} here"
    if crawl.engine in WITH_SOURCE and crawl.rounds:
        yield "crawl.rounds", f"only search engines can be asked for more, not '{crawl.engine}'"
    if crawl.engine not in WITH_SOURCE and crawl.source:
        only = f"only engines {', '.join(WITH_SOURCE)}"
        yield "crawl.source", f"{only} read it, not '{crawl.engine}'"
    if crawl.engine not in WITH_SAMPLE and crawl.sample:
        only = f"only engines {', '.join(WITH_SAMPLE)}"
        yield "crawl.sample", f"{only} use it, not '{crawl.engine}'"
    if NO_HEADER.search(crawl.contact):
        yield "crawl.contact", "it has line ends or other control characters, as no header may"
    if len(crawl.contact) > LONGEST_CONTACT:
        yield "crawl.contact", f"it has more than {LONGEST_CONTACT} letters: give an address"
    if crawl.engine != "files" and crawl.columns:
        yield "crawl.columns", f"only engine files uses it, not '{crawl.engine}'"


def _teacher(teacher: Teacher) -> Iterator[Conflict]:
    source = teacher.source
    if source == "file" and not teacher.path:
        yield "teacher.path", "source 'file' needs the path of the weights here"
    if source in WITH_REPOSITORY and not teacher.repository:
        yield "teacher.repository", f"source '{source}' needs owner/name:commit here"
    if source in WITH_WEIGHTS and not teacher.weights:
        needed = "the name of a function" if source == "torch.hub" else "the name of the weights"
        yield "teacher.weights", f"source '{source}' needs {needed} here"
    if teacher.path and source != "file":
        yield "teacher.path", f"only source 'file' reads it, not '{source}'"
    if teacher.repository and source not in WITH_REPOSITORY:
        yield "teacher.repository", f"only sources torch.hub and hub read it, not '{source}'"
    if teacher.weights and source == "train":
        yield "teacher.weights", f"source '{source}' does not read it"
    if teacher.sha256 and source == "train":
        yield "teacher.sha256", "source 'train' has no file to check"
    if source == "train" and (teacher.channels, teacher.order) != (3, "rgb"):
        yield "teacher.channels", "source 'train' trains on RGB: leave it and teacher.order alone"
    if teacher.channels == 1 and teacher.order != "rgb":
        yield "teacher.order", "one channel has no order: leave it"
    yield from _normalisation(teacher)
    if source == "train" and 0 < teacher.drawn < teacher.batch_size:
        what = f"larger than teacher.images ({teacher.drawn}): no full batch"
        yield "teacher.batch_size", what


def _normalisation(teacher: Teacher) -> Iterator[Conflict]:
    """Mean and deviation on another scale than 0 to 1, which no later check would understand."""
    mean, std = teacher.mean, teacher.std
    bytes_of = "is of pixels from 0 to 255, and here they go from 0 to 1: divided by 255 it is"
    if min(mean) < 0 or max(mean) > LIGHTEST:
        yield "teacher.mean", f"expected numbers from 0 to 1, got {list(mean)}"
    elif max(mean) > 1:
        yield "teacher.mean", f"{list(mean)} {bytes_of} {_divided(mean)}"
    # in bytes 1 is no division, and less than 1 is no deviation of any images
    if max(std) > 1 or (max(mean) > 1 and max(std) == 1):
        yield "teacher.std", f"{list(std)} {bytes_of} {_divided(std)}"
    if teacher.channels == 1:
        for name, values in (("mean", mean), ("std", std)):
            if len(set(values)) > 1:
                shown = [values[0]] * 3
                what = f"with teacher.channels 1 it is one number three times, as {shown}"
                yield f"teacher.{name}", f"{what}, got {list(values)}"


def _divided(values: tuple[float, ...]) -> list[float]:
    return [float(f"{value / LIGHTEST:.3g}") for value in values]


def _embed(params: Params) -> Iterator[Conflict]:
    size, side = params.embed.size, params.teacher.input_size
    if 0 < size < side:
        what = f"less than teacher.input_size ({side}), the centre that the teacher sees: 0 or more"
        yield "embed.size", what


def _distill(params: Params) -> Iterator[Conflict]:
    crawl, distill = params.crawl, params.distill
    if not distill.alignment and not distill.logit_weight and distill.objective == "kd3":
        yield "distill.logit_weight", "without alignment it has to be above 0"
    if distill.mix != "none" and distill.teacher_views and distill.objective != "official":
        what = f"the teacher has to see what mix '{distill.mix}' makes at every step: set it to 0"
        yield "distill.teacher_views", what
    if distill.keep == "agreement" and not distill.held_out:
        yield "distill.held_out", "keep 'agreement' needs held-out images"
    if distill.off_topic_weight and not params.embed.off_topic:
        yield "distill.off_topic_weight", "needs embed.off_topic"
    if distill.skip_redundant and not params.embed.redundant:
        yield "distill.skip_redundant", "needs embed.redundant above 0"
    if distill.sampling == "moments" and not params.embed.moments:
        yield "distill.sampling", "'moments' needs embed.moments"
    most = 0
    if crawl.sample and crawl.engine in WITH_SAMPLE:
        most, limit = crawl.sample, f"what crawl.sample ({crawl.sample}) leaves to train on"
    elif crawl.engine not in WITH_SAMPLE and isinstance(crawl.classes, (list, dict)):
        most = len(crawl.classes) * crawl.per_class
        limit = f"the {most} images that crawl can bring"
    if most and most * (1 - distill.held_out) < distill.batch_size:
        yield "distill.batch_size", f"larger than {limit}"


def _export(export: Export) -> Iterator[Conflict]:
    of_onnx = [
        ("export.int8", export.int8 != "none", "quantises"),
        ("export.formats", "onnx-fp16" in export.formats, "onnx-fp16 rounds"),
        ("export.runtimes", bool(export.runtimes), "run"),
    ]
    for key, asked, does in of_onnx:
        if asked and "onnx" not in export.formats:
            yield key, f"{does} the ONNX file: export.formats needs onnx"
    if export.licence and export.licence not in LICENCES:
        near = close_licences(export.licence)
        hint = f"did you mean {' or '.join(near)}?" if near else "as mit, apache-2.0 or cc-by-4.0"
        yield (
            "export.licence",
            f"'{printable(export.licence)[:60]}' is no licence that the model hub identifies; "
            f"{hint} For any other: other, and its licence_name",
        )
    if export.licence == OTHER and not export.licence_name.strip():
        yield "export.licence_name", "licence 'other' needs its name here"
    for key, text in (("name", export.licence_name), ("link", export.licence_link)):
        if text and export.licence != OTHER:
            yield f"export.licence_{key}", f"only licence 'other' has it, not '{export.licence}'"
