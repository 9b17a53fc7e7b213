"""Step of `pipeline check`, of `pipeline doctor`, and of the first moment of `dvc repro`."""

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from kd3_pipeline.console import Console
from kd3_pipeline.errors import ExternalError, PipelineError, UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Params
from kd3_pipeline.store import write_json
from kd3_stages import paths
from kd3_stages.code import ROOT
from kd3_stages.steps.consent import consented
from kd3_stages.steps.dvcfiles import mapping, read_yaml
from kd3_stages.steps.findings import Finding, show, what_next, wrong
from kd3_stages.steps.init import COPIES, TEMPLATES
from kd3_stages.steps.inputs import (
    completed,
    declared_sections,
    known_before,
    outside_paths,
    refuse_special,
)
from kd3_stages.steps.needs import light_findings
from kd3_stages.steps.to_run import SWITCH, stages_to_run

REMEMBERED = paths.CACHE / "inputs/check.json"
SECONDS = 1.5  # for the teacher's answers to test images
OF_NETWORKS = ("teacher", "embed", "distill", "evaluate")  # stages that a network's check is for


def run(params: Params, console: Console) -> int:
    """Says what is right and wrong with the project; the exit code that it asks for."""
    found = project_findings(params, console)
    return show([*found, what_next(found, "`dvc repro`")], console)


def project_findings(params: Params, console: Console) -> list[Finding]:
    """All findings about the project of this folder, whatever of it was run before."""
    to_run, problem = set(Params.model_fields), []
    try:
        to_run -= {"crawl"} - stages_to_run()  # a crawl that is done needs no key
        problem = [dvc_finding()]
    except PipelineError as error:
        problem = [wrong(str(paths.DVC), error)]
    try:
        refuse_special(outside_paths(params))
    except PipelineError as error:  # nothing else may open it
        return [*problem, wrong("files", error)]
    return [*problem, *light_findings(params, to_run), *network_findings(params, console)]


def look_before(found: Mapping[str, Any], to_run: Set[str], console: Console) -> None:
    """What `dvc repro` begins with: ends it where a stage that it would run is sure to fail.

    What was found of the networks is remembered, so that only a change is looked at again.

    Args:
        found: what `pipeline inputs` noted.
        to_run: stages that the run would run.

    Raises:
        UserError, ExternalError: a line for each thing that is to be set right.
    """
    params = read_params(paths.PARAMS)
    consented(params)
    findings = [dvc_finding(), *light_findings(params, to_run)]
    if to_run & set(OF_NETWORKS):
        findings += _remembered(params, found, console)
    elsewhere = _left_elsewhere(params)
    if bad := [one for one in findings if one.stops and one.name not in elsewhere]:
        text = "\n".join(f"{one.name}: {one.text}" for one in bad)
        text += f"\n`pipeline check` says all of it; with {SWITCH}=off a run begins all the same"
        outside = all(one.code == ExternalError.exit_code for one in bad)
        kind = ExternalError if outside else UserError
        raise kind(text)
    for one in findings:
        if one.loud or one.code:
            console.warn(f"{one.name}: {one.text}")


def network_findings(params: Params, console: Console) -> list[Finding]:
    """Findings about teacher, test set and student; no network is asked, and code of others runs
    by consent alone."""
    from kd3_stages.steps.teacher_check import check_teacher  # imports torch: it may be broken

    found = _devices(params)
    with console.progress("check: teacher, test set and student"):
        found += check_teacher(params, None, console, fetch=False, seconds=SECONDS)
    return found


def dvc_finding() -> Finding:
    """Whether dvc.yaml is that of this version, and params.yaml has the sections that it names.

    Raises:
        UserError: there is none, or it is no YAML, or none for these stages; or sections cannot be
            added to params.yaml.
    """
    completed(paths.PARAMS.read_text("utf-8"))
    declared_sections()
    stages = mapping(read_yaml(paths.DVC), "stages")
    template = mapping(read_yaml(TEMPLATES / COPIES[str(paths.DVC)]), "stages")
    other = [name for name, stage in template.items() if stages.get(name) != stage]
    name = f"{paths.PARAMS}, {paths.DVC}"
    if not other:
        return Finding(name, "valid, and of this version")
    text = (
        f"{paths.DVC} has {', '.join(other)} otherwise than this version:"
        " `pipeline init --renew .` writes the one that goes with it"
    )
    return Finding(name, text, None, loud=True)


def _devices(params: Params) -> list[Finding]:
    from kd3_pipeline.device import resolve_device

    of = [(stage, getattr(params, stage).device) for stage in OF_NETWORKS]
    found = []
    for stage, device in of:
        if stage == "teacher" and params.teacher.source != "train":
            continue
        try:
            resolve_device(device)
        except PipelineError as error:
            found.append(wrong(f"{stage}.device", error))
    return found


def _left_elsewhere(params: Params) -> set[str]:
    """Findings about files that are not here and were noted before: they are on another machine,
    as of a project whose outputs were pulled."""
    known = known_before()
    outside = outside_paths(params)
    return {
        finding
        for stage, finding in (("teacher", "teacher"), ("evaluate", "accuracy"))
        for path in outside[stage].values()
        if "sha256" in known.get(path, {}) and not Path(path).exists()
    }


def _remembered(params: Params, found: Mapping[str, Any], console: Console) -> Sequence[Finding]:
    """`network_findings`, or what they were when parameters, inputs and code were the same."""
    own = [path.read_bytes() for path in sorted((ROOT / "kd3_stages/steps").glob("*.py"))]
    about = json.dumps([params.model_dump(mode="json"), found], sort_keys=True)
    here = (paths.TEACHER / "config.json").is_file()
    key = hashlib.sha256(b"\0".join([about.encode(), str(here).encode(), *own])).hexdigest()
    try:
        before = json.loads(REMEMBERED.read_text("utf-8"))
        if before["key"] == key:
            return [Finding(**one) for one in before["findings"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # of another version, cut short, or none: it is looked at again
    findings = network_findings(params, console)
    if not any(one.stops for one in findings):  # else it is looked at until it is set right
        kept = [vars(one) | {"values": {}} for one in findings if one.loud or one.code]
        write_json(REMEMBERED, {"key": key, "findings": kept})
    return findings
