"""What a robots.txt says beyond Disallow: usages by group, licences, AI crawlers by name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kd3_pipeline.crawl.guard import PRODUCT
from kd3_pipeline.crawl.optouts.agents import AGENT_NAMES
from kd3_pipeline.crawl.optouts.forms import forms
from kd3_pipeline.crawl.optouts.paths import Pattern
from kd3_pipeline.crawl.optouts.signals import AI_AGENTS, Signal, strictest

AGENT_LINE = re.compile(r"user[- ]?agent\b[\s:]*(\*(?![\w-])|[a-z0-9_-]*)", re.IGNORECASE)
MOST_LICENCES = 3  # of one origin that are read; what more it names is told
FORMS = forms("robots.txt")
USAGES = ("content-signal", "content-usage")
ACCESS = ("allow", "disallow")
RULES = {*USAGES, *ACCESS, "crawl-delay", "request-rate", "visit-time", "noindex"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A line that binds paths: a usage, or an access that is allowed or not."""

    pattern: Pattern
    text: str
    allows: bool | None


@dataclass(slots=True, eq=False)
class Group:
    """Lines for some crawlers; of others' groups nothing is kept."""

    ours: bool = False
    everybody: bool = False
    names: set[str] = field(default_factory=set)  # of AI crawlers
    has_rules: bool = False
    usages: dict[str, list[Rule]] = field(default_factory=lambda: {kind: [] for kind in USAGES})
    access: list[Rule] = field(default_factory=list)  # kept for AI crawlers alone


@dataclass(frozen=True, slots=True)
class Declared:
    """What a robots.txt says of the use of an origin's files."""

    usages: dict[str, list[Rule]] = field(default_factory=dict)  # for us
    licences: tuple[str, ...] = ()
    more_licences: int = 0
    agents: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = ()  # names, their groups
    access: tuple[list[Rule], ...] = ()  # of each group

    def __bool__(self) -> bool:
        """False where nothing is said, as most files have it."""
        return bool(self.usages or self.licences or self.agents)

    def signals(self, path: str) -> list[Signal]:
        """What binds a path (with its query, as `spelt` has it)."""
        found = []
        for kind, rules in self.usages.items():
            longest = _longest(rules, path)
            if longest:
                allows = strictest(rule.allows for rule in longest)
                text = "; ".join(dict.fromkeys(rule.text for rule in longest))
                found.append(Signal(kind, "robots.txt", text, allows))
        closed = self._closed(path) if self.agents else []
        if closed:
            text = "disallows " + ", ".join(sorted(closed))
            found.append(Signal(AI_AGENTS, "robots.txt", text, False))
        if self.more_licences:
            text = f"{self.more_licences} more licences, not read"
            found.append(Signal("rsl", "robots.txt", text))
        return found

    def _closed(self, path: str) -> list[str]:
        """The AI crawlers that may not have a path."""
        # a group may be many crawlers' and of many rules: each is tried once
        longest = [_longest(rules, path) for rules in self.access]
        closed: list[str] = []
        for names, numbers in self.agents:
            found = _longest((rule for number in numbers for rule in longest[number]), path)
            if found and not any(rule.allows for rule in found):
                closed += names
        return closed


def declared(lines: Iterable[str]) -> Declared:
    """Reads the lines of a robots.txt of any content."""
    groups: list[Group] = []
    unnamed = group = Group(everybody=True, has_rules=True)  # before any user agent: for everybody
    licences: dict[str, None] = {}
    for line in lines:
        line = line.partition("#")[0].strip()
        if match := AGENT_LINE.match(line):
            if group.has_rules:
                group = Group()
            _name(group, match[1].lower(), groups)
            continue
        key, colon, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "license" and value:
            licences[value] = None
        elif key in RULES:
            group.has_rules = True
            _add(group, key, value)
    named = list(licences)
    return Declared(
        _for_us([unnamed, *groups]),
        tuple(named[:MOST_LICENCES]),
        max(0, len(named) - MOST_LICENCES),
        _agents(groups),
        tuple(group.access for group in groups),
    )


def _name(group: Group, name: str, groups: list[Group]) -> None:
    known = bool(group.ours or group.everybody or group.names)
    group.ours |= name == PRODUCT
    group.everybody |= name == "*"
    if name in AGENT_NAMES:
        group.names.add(name)
    if not known and (group.ours or group.everybody or group.names):
        groups.append(group)


def _add(group: Group, key: str, value: str) -> None:
    if key in USAGES and (group.ours or group.everybody):
        path, statement = "", value
        if value.startswith(("/", "*")):
            path, statement = [*value.split(None, 1), ""][:2]
        rule = Rule(Pattern(path), value, FORMS[key].read(statement))
        group.usages[key].append(rule)
    # an empty Disallow forbids nothing
    elif key in ACCESS and group.names and value:
        group.access.append(Rule(Pattern(value), value, key == "allow"))


def _for_us(groups: Sequence[Group]) -> dict[str, list[Rule]]:
    own = [group for group in groups if group.ours]
    chosen = own or [group for group in groups if group.everybody]
    usages = {kind: [rule for group in chosen for rule in group.usages[kind]] for kind in USAGES}
    return {kind: rules for kind, rules in usages.items() if rules}


def _agents(groups: Sequence[Group]) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    by_name: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        for name in group.names:
            by_name.setdefault(name, []).append(number)
    sharing: dict[tuple[int, ...], list[str]] = {}
    for name, numbers in by_name.items():
        sharing.setdefault(tuple(numbers), []).append(name)
    return tuple(
        (tuple(sorted(names)), numbers)
        for numbers, names in sharing.items()
        if any(not rule.allows for number in numbers for rule in groups[number].access)
    )


def _longest(rules: Iterable[Rule], path: str) -> list[Rule]:
    """The rules with the longest pattern of those that match."""
    found: list[Rule] = []
    for rule in rules:
        length, best = len(rule.pattern.text), len(found[0].pattern.text) if found else -1
        if length >= best and rule.pattern.matches(path):
            if length > best:
                found = []
            found.append(rule)
    return found
