"""The small run, drawn once: its files, its page, and a copy of the files to change."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kd3_pipeline.report.page import ReportFiles, build_report
from tests.report.world import World


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """The small run as it was written; nobody changes it."""
    return World().write(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def html(small: ReportFiles) -> str:
    """Its page."""
    return build_report(small)


@pytest.fixture
def files(small: ReportFiles, tmp_path: Path) -> ReportFiles:
    """A copy of it below `tmp_path`."""
    shutil.copytree(small.crawl.parent, tmp_path, dirs_exist_ok=True)
    inside = {name: path.relative_to(small.crawl.parent) for name, path in vars(small).items()}
    return replace(small, **{name: tmp_path / path for name, path in inside.items()})
