"""Step of `pipeline init --renew`: generated files of a project as this version has them."""

import os
from pathlib import Path

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_pipeline.presets import keep_beside
from kd3_pipeline.store import write_text
from kd3_pipeline.version import __version__
from kd3_stages import paths
from kd3_stages.code import ROOT
from kd3_stages.steps.dvcfiles import mapping, read_yaml
from kd3_stages.steps.init import COPIES, IGNORED, PLOTS, TEMPLATES, add_ignored, lacking_in

RENEWED = (str(paths.DVC), *(f".dvc/{name}" for name in PLOTS))  # .dvc/config is its owner's


def run(folder: Path, console: Console) -> None:
    """Writes them, and keeps beside each what was there and is different.

    params.yaml, DVC's settings and all results stay as they are.

    Raises:
        UserError: the folder is no project, or is the software's own.
    """
    if Path(os.path.realpath(folder)).is_relative_to(ROOT):
        raise UserError(f"{folder} is the software's own folder", "there, `make generated` does it")
    for path in (paths.PARAMS, paths.DVC):
        if not (folder / path).is_file():
            raise UserError(f"{folder / path} not found", "`pipeline init FOLDER` makes a project")
    own = _own(folder / paths.DVC)
    lacking_in(folder / IGNORED)  # which is refused before anything is written
    written, kept = [], {}
    for name in RENEWED:
        path, text = folder / name, (TEMPLATES / COPIES[name]).read_text("utf-8")
        old = path.read_bytes() if path.exists() else None
        if old == text.encode():
            continue
        if old is not None:
            kept[name] = str(keep_beside(path, old).relative_to(folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        written.append(name)
    written += add_ignored(folder / IGNORED)
    for name, copy in kept.items():
        console.note(f"what {name} was is kept as {copy}")
    if own:
        console.warn(f"{', '.join(own)} of {paths.DVC} stand in {kept[str(paths.DVC)]} alone now")
    what = ", ".join(written) or "nothing to do"
    console.result(
        f"init: {folder} has the files of version {__version__}: {what}",
        {"folder": str(folder), "files": written, "kept": kept, "own": own},
    )


def _own(path: Path) -> list[str]:
    """What a dvc.yaml declares and no version of ours does: stages, plots and other parts.

    Raises:
        UserError: it is no YAML.
    """
    ours = read_yaml(TEMPLATES / COPIES[str(paths.DVC)])
    return sorted(_names(read_yaml(path)) - _names(ours))


def _names(declared: object) -> set[str]:
    if not isinstance(declared, dict):
        return set()
    plots = declared.get("plots")
    names = {f"stage {name}" for name in mapping(declared, "stages")}
    for one in plots if isinstance(plots, list) else [plots]:
        of = [one] if isinstance(one, str) else one if isinstance(one, dict) else ()
        names |= {f"plot {name}" for name in of}
    return names | {str(key) for key in declared if key not in ("stages", "plots")}
