"""A new search engine is one file and one line: all else follows from the registry."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from tests.crawl.hosts import Host, Request, image, reply, serving
from tests.stages.loopback import pipeline
from tests.stages.workspace import copy_project

FILE = '''
"""Lines: an engine whose pages are lists of addresses."""

from kd3_pipeline.crawl.engines.engine import Budget, Engine, Result, ResultPage, address, filter_of


class Lines(Engine):
    """One address a line."""

    name, host, page_gap = "lines", "0.test", 0.0
    budget = Budget(page_results=4, query_results=8)
    note = "ask lines for little"

    def address(self, query, start):
        filter_of(self.name, {}, query.licence)
        return address("http://0.test/search", q=query.text, first=start)

    def read(self, page, query, start):
        found = [Result(line) for line in page.decode().split()]
        return ResultPage(found, start + 4 if start < 4 else None)
'''
LINE = '        "lines": Entry("lines:Lines", "lists of addresses"),\n'
BEFORE = '        "bing": Entry('
PARAMS = "crawl: {classes: [cat, dog], per_class: 3, host_gap: 0}\ndistill: {batch_size: 4}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the engine `lines`."""
    folder = copy_project(tmp_path / "project", PARAMS)
    (folder / "pipeline/crawl/engines/lines.py").write_text(FILE)
    registry = folder / "pipeline/registry.py"
    text = registry.read_text()
    assert text.count(BEFORE) == 1
    registry.write_text(text.replace(BEFORE, LINE + BEFORE))
    return folder


def engine() -> Host:
    """Eight results for every query, four a page."""

    def found(request: Request) -> None:
        fields = parse_qs(urlsplit(request.path).query)
        query, first = fields["q"][0], int(fields["first"][0])
        numbers = range(first, min(first + 4, 8))
        reply("\n".join(f"http://1.test/{query}/{n}" for n in numbers).encode())(request)

    return Host({"/search": found})


def test_a_new_engine_crawls(project: Path) -> None:
    names = [f"/{name}/{number}" for name in ("cat", "dog") for number in range(8)]
    images = Host({path: image(index) for index, path in enumerate(names)})
    with serving(engine(), images) as hosts:
        done = pipeline(project, hosts, "crawl", "--engine", "lines", "--json")
    assert done.returncode == 0, done.stderr
    assert "note: ask lines for little" in done.stderr
    assert json.loads(done.stdout)["stored"] == 6
    table = pq.read_table(project / "data/crawl/manifest.parquet")
    assert set(table["engine"].to_pylist()) == {"lines"}
    stored = pq.read_table(project / "data/crawl/images-00000.parquet")
    assert stored["label"].to_pylist() == [0, 0, 0, 1, 1, 1]


def test_doctor_asks_a_new_engine(project: Path) -> None:
    with serving(engine()) as hosts:
        done = pipeline(project, hosts, "doctor", "--engine", "lines", "--query", "cat")
    assert done.returncode == 0, done.stderr
    assert "lines: 'cat': HTTP 200" in done.stdout and "4 results" in done.stdout


def test_what_may_be_named_follows(project: Path) -> None:
    for command in ("crawl", "doctor"):
        done = pipeline(project, {}, command, "--engine", "altavista")
        assert done.returncode == 2
        assert "lines" in done.stderr and "bing" in done.stderr, command
    done = pipeline(project, {}, "crawl", "--help")
    assert "lines, bing" in " ".join(done.stdout.split())
    done = pipeline(project, {}, "crawl", "--engine", "lines", "-S", "crawl.licence=modify")
    assert done.returncode == 2
    assert "lines cannot filter by 'modify'" in done.stderr
