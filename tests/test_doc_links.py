"""Paths and links of the pages lead somewhere, and their lines are short."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.imports import ROOT
from tests.pages import PAGES, blocks, prose, shown, spans

RESULTS = ROOT / "benchmarks/RESULTS.md"  # with lines as long as its tables need
PRESETS = sorted((ROOT / "pipeline/presets").glob("*.yaml"))
YOURS = {  # paths that a page tells its reader to fill
    "teacher/wildlife.pt",
    "wildlife-test",
    "my-styles",
    "data/collection",
    *("data/cifar10/train.parquet", "data/cifar10/test.parquet", "data/cifar10/"),
    "pipeline/crawl/engines/example.py",
}
# by a command, and no output of a stage
MADE = (
    *(".cache/", ".venv/", "my-env/", "dist/"),
    *("reports/tune.", "reports/dedup.html", "reports/contamination.html"),
)
FILES = ("crawl.source", "teacher.path", "teacher.data", "evaluate.test_set", "evaluate.styles")
FILL_IN = re.compile(r"\b(NAME|PATH|STAGE|STYLE|CLASS|RUN-KEY|VERSION|X)\b")
DATA_SETS = {"", "demo", "cifar10", "cifar100"}


def outputs() -> list[str]:
    """What the stages write, as dvc.yaml has it."""
    found = []
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        for kind in ("outs", "metrics", "plots"):
            found += [
                one if isinstance(one, str) else next(iter(one)) for one in stage.get(kind, [])
            ]
    return found


OUTPUTS = outputs()


@pytest.mark.parametrize("page", [*PAGES, RESULTS], ids=shown)
def test_paths_in_a_page_exist_or_are_made(page: Path) -> None:
    wrong = [path for path in paths_in(page) if not is_there(path)]
    assert wrong == []


def paths_in(page: Path) -> Iterator[str]:
    """Relative paths in `code` of a page's text and blocks, without those to fill in."""
    found = [span for span in spans(page) if re.fullmatch(r"\.?[\w.*-]+(/[\w.*-]+)*/?", span)]
    for block in [*blocks("sh"), *blocks("python")]:
        if block.page == page:
            found += re.findall(r"(?<=[\s\"'])(?:\w[\w.-]*/)+[\w.*-]+", block.text)
    for block in blocks("yaml"):
        if block.page == page:
            found += [path for _, path in paths_of(yaml.safe_load(block.text))]
    for path in found:
        if "/" in path and not FILL_IN.search(path):
            yield path


def paths_of(params: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Parameters that name a file of the user's, with its path."""
    for section, values in params.items():
        for key, value in (values or {}).items():
            if f"{section}.{key}" in FILES and value not in DATA_SETS:
                yield f"{section}.{key}", value


def is_there(path: str) -> bool:
    if path in YOURS or path.startswith(MADE) or list(ROOT.glob(path.rstrip("/"))):
        return True
    if path.rstrip("/") in {str(Path(output).parent) for output in OUTPUTS}:
        return True
    made = [output for output in OUTPUTS if f"{path.rstrip('/')}/".startswith(f"{output}/")]
    return bool(made) or any(Path(output).match(path) for output in OUTPUTS)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_paths_in_a_preset_exist_or_are_explained(path: Path) -> None:
    text = path.read_text()
    comments = "\n".join(re.findall(r"#.*", text))
    for key, value in paths_of(yaml.safe_load(text)):
        assert (ROOT / value).exists() or key in comments or value in comments, f"{key}: {value}"


@pytest.mark.parametrize("page", [*PAGES, RESULTS], ids=shown)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.is_file(), target
        assert linked.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    plain = [re.sub(r"[`*]|\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def test_every_page_is_linked_from_the_readme_or_the_index() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in (ROOT / "README.md", ROOT / "docs/README.md")
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
    }
    assert {page for page in PAGES if page.name != "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_lines_of_a_page_are_short(page: Path) -> None:
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("|") and not re.search(r"https?://\S{60}", line):
            assert len(line) <= 100, f"{page.name}:{number}: {len(line)} characters"


@pytest.mark.parametrize("page", [*PAGES, RESULTS], ids=shown)
def test_a_page_names_nothing_beside_the_project(page: Path) -> None:
    assert "../shared" not in page.read_text("utf-8")


def test_the_readme_is_read_in_one_sitting() -> None:
    assert 600 <= len((ROOT / "README.md").read_text("utf-8").split()) <= 800
