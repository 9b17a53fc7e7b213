"""Rows of a table: one YAML file of pairs, pools, methods and lengths, crossed and checked."""

import hashlib
import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import check, load_yaml
from kd3_pipeline.params import Params
from kd3_pipeline.presets import preset_names

Kind = Literal["cpu", "gpu"]
KINDS: tuple[Kind, ...] = ("cpu", "gpu")
Settings = dict[str, Any]  # values by dotted key, as `distill.lr`
Number = Annotated[int, Field(gt=0)]
KEPT = "KEPT"  # stands for the folder of labelled originals that dedup has left
DATA = "DATA/"  # stands for the folder of data sets
NAME = re.compile(r"[a-z0-9_-]+")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Strict):
    """Rows of all these pairs, pools, methods and lengths, with seeds 0 to `seeds` − 1."""

    pairs: list[str]
    pools: list[str]
    methods: list[str]
    steps: list[Number] = []
    seconds: list[Number] = []
    seeds: Number


class Plan(_Strict):
    """A file of rows.

    Attributes:
        paces: milliseconds of a step by pair and method, as `--speed` measured them on one idle
            machine: rows of seconds have as many steps as go into these, the same on every machine.
    """

    preset: str
    common: Settings
    teachers: dict[str, Settings]
    pools: dict[str, Settings]
    methods: dict[str, Settings]
    paces: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = {}
    rows: dict[Kind, list[Entry]]


@dataclass(frozen=True)
class Row:
    """One run of the table.

    Attributes:
        unit, length: how long it trains, in steps or seconds.
        steps: how many that are; None where a row of seconds has no pace, and is timed.
        settings: all parameters that differ from the preset's, with `DATA/` and `KEPT` in them.
        with_labels: the student is trained on labels; else from the teacher.
    """

    pair: str
    pool: str
    method: str
    unit: Literal["steps", "seconds"]
    length: int
    steps: int | None
    seed: int
    preset: str
    settings: Settings
    with_labels: bool

    @property
    def name(self) -> str:
        """Name of the row, and of its DVC experiment."""
        return f"{self.group}.seed{self.seed}"

    @property
    def group(self) -> str:
        """Name of the row without its seed."""
        return f"{self.pair}.{self.pool}.{self.method}.{self.length}-{self.unit}"

    @property
    def student(self) -> str:
        """Architecture that is trained."""
        return self.pair.partition("-")[2]

    @property
    def key(self) -> str:
        """Hash of all that the row's result depends on but for code, data and machine."""
        by = (self.unit, self.length) if self.steps is None else ("steps", self.steps)
        return digest([self.preset, self.settings, *by])

    @property
    def shared(self) -> Settings:
        """The settings that all rows of the project have alike."""
        return {at: value for at, value in self.settings.items() if not self._own(at)}

    @property
    def own(self) -> Settings:
        """The settings of the row alone."""
        return {at: value for at, value in self.settings.items() if self._own(at)}

    @property
    def project(self) -> str:
        """Name of the folder that the row shares with all rows of its teacher, pool and store."""
        who = "labels" if self.with_labels else self.pair.partition("-")[0]
        return f"{who}-{self.pool}-{digest([self.preset, self.shared])[:8]}"

    def _own(self, at: str) -> bool:
        return at.startswith("teacher." if self.with_labels else "distill.")


def read_rows(path: Path, kind: Kind, only: str = "") -> list[Row]:
    """The rows of one kind in `path`, in its order, of those that `only` finds in their names.

    Raises:
        UserError: not such a file, a name that it does not explain, or a wrong parameter.
    """
    plan = read_plan(path)
    rows = [row for entry in plan.rows.get(kind, []) for row in _crossed(entry, plan, path)]
    found = list({row.name: row for row in rows if re.search(only, row.name)}.values())
    if not found:
        raise UserError(f"no row of {path.name} for a {kind} is called '{only}'", "see --list")
    for row in {row.group: row for row in found}.values():
        _check(row, path)
    return found


def read_plan(path: Path) -> Plan:
    """A file of rows.

    Raises:
        UserError: not YAML, a key given twice, or another form.
    """
    try:
        return Plan.model_validate(load_yaml(path.read_text("utf-8"), path.name)[0])
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UserError(f"{path.name}: {'; '.join(lines)}") from None


def _crossed(entry: Entry, plan: Plan, path: Path) -> list[Row]:
    lengths = [("steps", n) for n in entry.steps] + [("seconds", n) for n in entry.seconds]
    if not lengths:
        raise UserError(f"{path.name}: rows of {entry.pairs} have neither steps nor seconds")
    cells = product(entry.pairs, entry.pools, lengths, entry.methods, range(entry.seeds))
    return [
        _row(plan, path, pair, pool, method, unit, length, seed)
        for pair, pool, (unit, length), method, seed in cells
    ]


def _row(
    plan: Plan, path: Path, pair: str, pool: str, method: str, unit: Any, length: int, seed: int
) -> Row:
    teacher, _, student = pair.partition("-")
    named = {"teachers": teacher, "pools": pool, "methods": method}
    for kind, name in named.items():
        if name not in getattr(plan, kind) or not NAME.fullmatch(name):
            known = ", ".join(getattr(plan, kind))
            raise UserError(f"{path.name}: '{name}' is none of {kind}: {known}")
    own = plan.methods[method]
    with_labels = any(at.startswith("teacher.") for at in own)
    pace = plan.paces.get(pair, {}).get(method)
    steps = length if unit == "steps" else round(1000 * length / pace) if pace else None
    if with_labels and steps is None:
        raise UserError(
            f"{path.name}: '{method}' trains on labels, by steps alone",
            f"give its rows steps, or paces.{pair} a line of it",
        )
    settings = plan.common | plan.pools[pool]
    if with_labels:
        settings |= own | {"teacher.architecture": student, "teacher.seed": seed}
    else:
        settings |= plan.teachers[teacher] | own
        settings |= {"distill.student": student, "distill.seed": seed}
        settings["distill.budget"] = f"{length}s" if steps is None else f"{steps} steps"
    about = (pair, pool, method, unit, length, steps, seed)
    return Row(*about, plan.preset, settings, with_labels)


def _check(row: Row, path: Path) -> None:
    """Raises a UserError for a preset or a parameter that there is not."""
    if row.preset not in preset_names():
        raise UserError(f"{path.name}: no preset named '{row.preset}'")
    try:
        checked(row.settings)
    except UserError as error:
        raise UserError(f"{path.name}: {row.group}: {error}") from None


def checked(settings: Settings) -> Params:
    """Settings by dotted key as parameters.

    Raises:
        UserError: an unknown key, or a wrong value.
    """
    return check(nested({}, settings), {}, "parameters")


def nested(params: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """`params` by section with `settings` by dotted key put in."""
    whole = {section: dict(values) for section, values in params.items()}
    for at, value in settings.items():
        section, _, key = at.partition(".")
        whole.setdefault(section, {})[key] = value
    return whole


def digest(value: Any) -> str:
    """Short hash of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
