"""Search for parameters of distill: its space, and a study that goes on where it stopped."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from kd3_pipeline.console import Advance
from kd3_pipeline.device import resolve_precision
from kd3_pipeline.distill.objectives.objective import fitting, with_own_settings
from kd3_pipeline.distill.trials import Trials
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.paramfile import check, load_yaml
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES

Space = dict[str, BaseDistribution]
# values → agreement of a run with them, and why it failed ("" if it did not)
Judge = Callable[[dict[str, Any], Advance], tuple[float, str]]

STARTUP = 5  # trials at random; optuna's ten would leave a short search nothing to learn from
DIGITS = 4  # of a drawn number, so that a person can copy it
WEIGHED = "the images are weighed before the search"
SPEED = "it changes the speed and not the student"
REFUSED = {
    "seed": "a better seed is luck",
    "budget": "a longer run is better, whatever else it is",
    "keep": "an epoch chosen by agreement cannot be judged by it",
    "held_out": "agreement is measured on what it holds out",
    "off_topic_weight": WEIGHED,
    "skip_redundant": WEIGHED,
    "trust": "consent is yours to give",
    "student_options": "they belong to one student",
    "pixels": SPEED,
    "compile": SPEED,
    "device": SPEED,
    "precision": "the hardware decides it",
}


def read_space(texts: Sequence[str], objective: str) -> Space:
    """The space that options such as `lr=0.1:2` and `crop=pad,none` describe.

    Args:
        objective: of the runs, unless the space has one.

    Raises:
        UserError: in one line: no such parameter, or none to search, or a value it cannot have.
    """
    space: Space = {}
    for text in texts:
        name, distribution = _parameter(text)
        if name in space:
            raise UserError(f"--search {text}: {name} is given twice")
        space[name] = distribution
    searched = space.get("objective", CategoricalDistribution((objective,)))
    assert isinstance(searched, CategoricalDistribution)  # there is no range of words
    for one in map(str, searched.choices):
        fixed = OBJECTIVES.load(one).settings
        for name in space.keys() & fixed.keys():
            raise UserError(
                f"--search {name}: objective '{one}' sets it to {fixed[name]}",
                "leave it out, or take another objective",
            )
    return space


@dataclass(frozen=True)
class Runs:
    """The judge of a search: runs of the parameters `section`, with values changed.

    Attributes:
        web: with enough held-out images to choose by.
        teacher: frozen, in evaluation mode; `config` is its own.
        folder: where every run has a folder of its own.
    """

    section: Distill
    web: WebImages
    teacher: Network
    config: ModelConfig
    device: torch.device
    folder: Path

    def __call__(self, values: dict[str, Any], advance: Advance) -> tuple[float, str]:
        wanted, _ = fitting(with_values(self.section, values), self.teacher)
        precision = resolve_precision(wanted.precision, self.device)
        trials = Trials(self.web, self.teacher, self.config, precision, self.folder)
        name = trial_name(values)
        agreement = trials.agreement(wanted, name, advance)
        found = json.loads((self.folder / name / "agreement.json").read_text("utf-8"))
        return agreement, found.get("failed", "")


def with_values(section: Distill, values: Mapping[str, Any]) -> Distill:
    """The parameters of a trial, with what its objective sets itself."""
    return with_own_settings(section.model_copy(update=dict(values)))


def trial_name(values: Mapping[str, Any]) -> str:
    """The same for equal values only."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def open_study(journal: Path, space: Space, current: Mapping[str, Any]) -> optuna.Study:
    """The study in `journal`; a trial that was running when its process ended comes first again.

    Args:
        current: values that a new study begins with, as far as they lie in the space.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="tune",
        direction="maximize",
        load_if_exists=True,
    )
    for stale in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
        if stale.params.keys() == space.keys():
            study.enqueue_trial(stale.params)
    if not study.get_trials(states=(TrialState.COMPLETE, TrialState.WAITING)):
        study.enqueue_trial(
            {name: current[name] for name in space if _holds(space[name], current[name])}
        )
    return study


def search(
    study: optuna.Study, space: Space, seed: int, trials: int, judge: Judge, advance: Advance
) -> None:
    """Runs what `study` lacks to have `trials` trials.

    A trial's values depend on the finished ones and the seed alone, so an interrupted search goes
    on as if it had not been.

    Args:
        advance: called with 1 for every trial, those of earlier processes too.
    """
    before = results(study, space)
    advance(min(len(before), trials))
    for number in range(len(before) + 1, trials + 1):
        best = max((row["agreement"] for row in results(study, space)), default=None)
        so_far = "" if best is None else f"; best so far {best:.1%}"

        def told(n: int = 1, note: str = "", *, title: str = f"trial {number}{so_far}") -> None:
            advance(0, f"{title}; {note}" if note else title)

        study.sampler = optuna.samplers.TPESampler(
            seed=(seed + number) % 2**32, n_startup_trials=STARTUP
        )
        trial = study.ask(space)
        agreement, failed = judge(_values(trial, space), told)
        trial.set_user_attr("failed", failed)
        study.tell(trial, agreement)
        advance(1)


def results(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    """The finished trials, best first: trial (from 1), agreement, the values, why it failed."""
    rows = [
        {
            "trial": number,
            "agreement": trial.value,
            **_values(trial, space),
            "failed": trial.user_attrs["failed"],
        }
        for number, trial in enumerate(_finished(study), start=1)
    ]
    return sorted(rows, key=lambda row: (bool(row["failed"]), -row["agreement"], row["trial"]))


def _parameter(text: str) -> tuple[str, BaseDistribution]:
    option = f"--search {text}"
    name, equals, described = text.partition("=")
    if not equals:
        raise UserError(f"{option}: expected NAME=LOW:HIGH or NAME=A,B")
    if name in REFUSED:
        raise UserError(f"{option}: {name} cannot be searched: {REFUSED[name]}")
    is_range = ":" in described
    parts = described.split(":" if is_range else ",", maxsplit=1 if is_range else -1)
    values = [_value(option, name, part) for part in parts]
    if not is_range:
        if name == "lr" and "auto" in values:
            raise UserError(f"{option}: 'auto' is a search itself", "list rates, or give a range")
        return name, CategoricalDistribution(tuple(dict.fromkeys(values)))
    low, high = values
    if any(isinstance(value, bool | str) for value in values):
        raise UserError(f"{option}: a range is of numbers", f"list the values: {name}=A,B")
    if low <= 0:
        raise UserError(
            f"{option}: a range is drawn by its logarithm, so it begins above 0",
            f"list the values: {name}=A,B",
        )
    if low >= high:
        raise UserError(f"{option}: {low} is not below {high}")
    kind = IntDistribution if isinstance(low, int) else FloatDistribution
    return name, kind(low, high, log=True)


def _value(option: str, name: str, text: str) -> Any:
    """`text` as the parameter's value."""
    read, _ = load_yaml(text, option)
    try:
        params = check({"distill": {name: read}}, {f"distill.{name}": option}, option)
        value = getattr(params.distill, name)
        if name == "student":
            with torch.device("meta"):  # no memory, no time
                build(value, 2)
    except UserError as error:
        line = str(error).splitlines()[0]  # one for each kind of value that was tried
        raise UserError(line if line.startswith(option) else f"{option}: {line}") from None
    return value


def _holds(distribution: Any, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return not isinstance(value, str) and distribution.low <= value <= distribution.high


def _values(trial: Any, space: Space) -> dict[str, Any]:
    """A trial's values, drawn numbers with few digits."""
    values = {}
    for name, distribution in space.items():
        value = trial.params[name]
        if isinstance(distribution, FloatDistribution):
            short = float(f"{value:.{DIGITS}g}")
            value = min(max(short, distribution.low), distribution.high)
        values[name] = value
    return values


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
