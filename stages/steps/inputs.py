"""Step of `pipeline inputs`: one small file a stage, which DVC tracks in place of what it names."""

import glob
import json
import stat
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kd3_pipeline.console import Console
from kd3_pipeline.content import Hashes, content
from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import load_yaml, read_params
from kd3_pipeline.params import Crawl, Params
from kd3_pipeline.registry import SEARCH_ENGINES
from kd3_pipeline.store import write_json, write_text
from kd3_stages import paths
from kd3_stages.code import code_hash
from kd3_stages.steps.dvcfiles import mapping, read_yaml

DRAWN_OR_LOADED = ("demo", "cifar10", "cifar100")  # data sets that are no path
RENEWED = "`pipeline init --renew .` writes the one that goes with this version"
CODE_COUNTS_NOT = ("crawl",)  # nor do defaults, which are code: no upgrade crawls the web again


def run(console: Console, look: Callable[[dict[str, Any]], None]) -> None:
    """Writes data/inputs; `look` at what was found may end the command."""
    found = note_inputs(console)
    look(found)
    outside = {at: one for stage in found.values() for at, one in stage["outside"].items()}
    lines = [f"{at}: {_told(one)}" for at, one in outside.items()]
    named = f"{len(outside)} input{'s' * (len(outside) != 1)} that {paths.PARAMS} names"
    lines.append(f"inputs: {named} → {paths.INPUTS}")
    console.result("\n".join(lines), found)


def note_inputs(console: Console) -> dict[str, dict[str, Any]]:
    """Writes data/inputs, and returns for each stage what its file says.

    `outside`: the content of each path by the parameter that names it; `defaults`: parameters that
    params.yaml lacks; `taken`: what a stage takes from other sections; `code`: a hash of the code
    that it runs. The file says nothing that differs between machines with the same content and the
    same version. A path that is not here counts as unchanged if inputs.lock knows it: who clones
    the project and pulls its outputs needs no teacher's file to go on from them.
    """
    params = read_params(paths.PARAMS)
    _complete(console)
    stages = declared_sections()
    outside = outside_paths(params)
    refuse_special(outside)
    found: dict[str, dict[str, Any]] = {}
    before = known_before()
    known = {}
    with (
        Hashes(paths.CACHE / "inputs/hashes.sqlite") as hashes,
        console.progress("inputs: reading") as advance,
    ):
        for path in sorted({path for named in outside.values() for path in named.values()}):
            now = content(Path(path), hashes, advance)
            known[path] = asdict(now) if now else before.get(path, {"missing": True})
    for stage, sections in stages.items():
        contents = {at: {"path": path} | known[path] for at, path in outside.get(stage, {}).items()}
        defaults = {} if stage in CODE_COUNTS_NOT else defaults_in_use(params, sections)
        found[stage] = {"outside": contents, "defaults": defaults}
        if others := taken_from_others(stage, params):
            found[stage]["taken"] = others
        if stage not in CODE_COUNTS_NOT:
            found[stage]["code"] = code_hash(stage)
        write_json(paths.INPUTS / f"{stage}.json", found[stage])
    if known != before:
        write_json(paths.INPUTS_LOCK, known)
    return found


def declared_sections() -> dict[str, list[str]]:
    """The sections that each stage of this software depends on, by dvc.yaml; one that was taken
    out of it has none, and stages that a user has added are not asked.

    Raises:
        UserError: there is no dvc.yaml, or it has none of these stages, or one that is none.
    """
    stages = mapping(read_yaml(paths.DVC), "stages")
    found = {name: stages[name] for name in Params.model_fields if name in stages}
    for name in found:
        sections = mapping(found, name).get("params")
        if not isinstance(sections, list) or not all(isinstance(one, str) for one in sections):
            raise UserError(f"{paths.DVC}: stage {name} has no list of params", RENEWED)
        unknown = {one.partition(".")[0] for one in sections} - {*Params.model_fields}
        if unknown:
            raise UserError(f"{paths.DVC}: stage {name}: no section {min(unknown)}", RENEWED)
    if not found:
        raise UserError(f"{paths.DVC} has no stage of this software", RENEWED)
    return {name: stage["params"] for name, stage in found.items()}


def _complete(console: Console) -> None:
    """Adds the sections that params.yaml lacks, empty: DVC stops at a stage without one."""
    text, lacking = completed(paths.PARAMS.read_text("utf-8"))
    if not lacking:
        return
    write_text(paths.PARAMS, text)
    console.note(f"{paths.PARAMS} lacked {', '.join(lacking)}: added, empty, for DVC needs them")


def completed(text: str) -> tuple[str, list[str]]:
    """The text of a params.yaml with all sections, and those that it lacked.

    Raises:
        UserError: it is written so that they cannot just be added at its end.
    """
    found = load_yaml(text, paths.PARAMS.name)[0] or {}
    lacking = [section for section in Params.model_fields if section not in found]
    if not lacking:
        return text, []
    text += "" if not text or text.endswith("\n") else "\n"
    text += "".join(f"{section}: {{}}\n" for section in lacking)
    try:
        whole = load_yaml(text, paths.PARAMS.name)[0]
    except UserError:
        whole = None
    if whole != found | {section: {} for section in lacking}:
        raise UserError(
            f"{paths.PARAMS} lacks the sections {', '.join(lacking)}, without which DVC stops",
            f"add them, as in `{lacking[0]}: {{}}` for a section whose values are the defaults",
        )
    return text, lacking


def known_before() -> dict[str, dict[str, Any]]:
    """Content of each path by inputs.lock; nothing if there is none, or none that can be read."""
    try:
        found = json.loads(paths.INPUTS_LOCK.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):  # as after a merge: it is read again
        return {}
    return (
        {at: one for at, one in found.items() if _is_content(one)}
        if isinstance(found, dict)
        else {}
    )


def _is_content(one: Any) -> bool:
    """Whether an entry of inputs.lock says what a file or a folder was."""
    kinds = {"files": int, "bytes": int, "sha256": str}
    return isinstance(one, dict) and all(
        isinstance(one.get(key), kind) for key, kind in kinds.items()
    )


def outside_paths(params: Params) -> dict[str, dict[str, str]]:
    """By stage the paths that it reads and DVC does not know, by the parameter that names them.

    What a library downloads (torchvision, hubs) is not here: it is pinned by its name or hash.
    """
    teacher, evaluate = params.teacher, params.evaluate
    named: dict[str, dict[str, str]] = {"dedup": {}, "teacher": {}, "evaluate": {}}
    named["crawl"] = crawl_paths(params.crawl)
    if teacher.source == "file":
        named["teacher"]["teacher.path"] = teacher.path
    if teacher.source == "train" and teacher.data not in DRAWN_OR_LOADED:
        named["teacher"]["teacher.data"] = teacher.data
    if teacher.source == "torch.hub" and Path(teacher.repository).is_dir():
        named["teacher"]["teacher.repository"] = teacher.repository
    if isinstance(teacher.class_names, str) and teacher.class_names:
        named["teacher"]["teacher.class_names"] = teacher.class_names
    named["teacher"] |= code_paths("teacher.architecture", teacher.architecture)
    named["distill"] = code_paths("distill.student", params.distill.student)
    if params.distill.starts_from_file:  # else the name of a library's weights
        named["distill"]["distill.student_weights"] = params.distill.student_weights
    if evaluate.test_set not in DRAWN_OR_LOADED:
        test_set = {"evaluate.test_set": evaluate.test_set}
        named["evaluate"] |= test_set
        named["dedup"] = test_set if params.dedup.leaks else {}
        named["export"] = dict(test_set) if params.export.int8 != "none" else {}
    if isinstance(evaluate.class_names, str) and evaluate.class_names:
        named["evaluate"]["evaluate.class_names"] = evaluate.class_names
        if params.export.int8 != "none":
            named.setdefault("export", {})["evaluate.class_names"] = evaluate.class_names
    if evaluate.styles:
        named["evaluate"]["evaluate.styles"] = evaluate.styles
    return named


def crawl_paths(section: Crawl) -> dict[str, str]:
    """The same of the crawl alone."""
    named = {}
    if section.engine != "site" and is_file_of_classes(section.classes):
        named["crawl.classes"] = str(section.classes)
    if section.engine in ("files", "urls"):
        named["crawl.source"] = section.source
    if section.blocklist:
        named["crawl.blocklist"] = section.blocklist
    if section.engine == "captions":
        named |= caption_tables(section.source)
    return named


def refuse_special(outside: dict[str, dict[str, str]]) -> None:
    """Raises a UserError where a parameter names a pipe, which would be waited for, or a device,
    which may have no end."""
    for key, path in [pair for named in outside.values() for pair in named.items()]:
        try:
            kind = Path(path).stat().st_mode
        except OSError:  # whoever reads it says so
            continue
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UserError(
                f"{key}: {path} is neither a file nor a folder",
                "copy what it gives into a file, and name that",
            )


def code_paths(key: str, architecture: str) -> dict[str, str]:
    """Files of the user's own code behind an architecture, for what it runs for."""
    if ":" not in architecture:
        return {}
    from kd3_pipeline.models.own import code_files  # late: imports torch

    try:
        files = code_files(architecture)
    except UserError:  # the stage that needs it says so
        return {key: architecture.rpartition(":")[0]}
    return {f"{key}: {path}": str(path) for path in files}


def caption_tables(source: str) -> dict[str, str]:
    """What `crawl.source` means for the engine `captions`: one path, or each file of a pattern."""
    found = sorted(glob.glob(source, recursive=True)) if not Path(source).exists() else []
    return {f"crawl.source: {path}": path for path in found} or {"crawl.source": source}


def taken_from_others(stage: str, params: Params) -> dict[str, Any]:
    """What a stage takes from other sections, in which DVC would want every key to be there."""
    if stage == "crawl":
        return _taken_by_crawl(params)
    if stage == "teacher" and params.teacher.source == "train":
        return {"embed.fit": params.embed.fit, "embed.size": params.embed.size}
    if stage == "dedup" and params.dedup.leaks:
        of = params.evaluate
        names = ("test_set", "columns", "broken")
        return {f"evaluate.{name}": getattr(of, name) for name in names}
    if stage == "distill":
        return {"embed.fit": params.embed.fit}  # the student's config has it; the size, data/embed
    return {}


def _taken_by_crawl(params: Params) -> dict[str, Any]:
    crawl = params.crawl
    found: dict[str, Any] = {}
    known = crawl.engine in SEARCH_ENGINES.entries
    if crawl.side == "auto" and known and SEARCH_ENGINES.load(crawl.engine).sized:
        found["side"] = params.picture_side
    if crawl.rounds:
        found |= {"embed.fit": params.embed.fit, "embed.size": params.embed.size}
    return found


def is_file_of_classes(classes: object) -> bool:
    """Tells whether `crawl.classes` is the path of a class set, as `load_classes` reads it."""
    return isinstance(classes, str) and classes.endswith((".yaml", ".yml"))


def defaults_in_use(params: Params, declared: list[str]) -> dict[str, Any]:
    """Parameters of a stage that params.yaml lacks: DVC tracks values that are in it, and no other.

    Args:
        declared: sections, or keys as `evaluate.test_set`, as dvc.yaml lists them for the stage.
    """
    found = {}
    for at in declared:
        section, _, only = at.partition(".")
        values = getattr(params, section)
        for key, value in values.model_dump(mode="json").items():
            if key not in values.model_fields_set and only in ("", key):
                found[f"{section}.{key}"] = value
    return found


def _told(one: dict[str, Any]) -> str:
    if "missing" in one:
        return f"{one['path']} is not there"
    files = f"{one['files']:,} file{'s' * (one['files'] != 1)}"
    return f"{one['path']}, {files}, {one['bytes'] / 1e6:,.1f} MB"
