"""Class names as people and attackers write them, through the whole command."""

import json
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.classes import load_classes
from kd3_stages import sources
from kd3_stages.cli import app
from tests.crawl.hosts import Host, image, serving
from tests.crawl.searching import answering, asked, bing, page

NAMES = "AT&T logo,C#,日本,../x,<script>alert(1)</script>,$(touch pwned);`id`"
WANTED = 3
PARAMS = """
distill: {batch_size: 8}
crawl: {filters: false, expand: none, canary: false}
"""


def test_any_name_is_asked_for_and_becomes_no_path(tmp_path, monkeypatch, capsys):
    names = NAMES.split(",")
    images, numbers = Host(), iter(range(100))
    found = {}

    def answer(query, first):
        if first:
            return page()
        found[query] = [next(numbers) for _ in range(WANTED)]
        return page(*({"murl": f"http://1.test/{n}.jpg", "t": f"../{query}"} for n in found[query]))

    for number in range(30):
        images.routes[f"/{number}.jpg"] = image(number)
    engine = answering(answer)
    with serving(engine, images) as hosts:

        @contextmanager
        def fake_engine(section, classes, console):
            yield bing(), hosts

        monkeypatch.setattr(sources, "engine_for", fake_engine)
        folder = tmp_path / "a" / "b"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        (folder / "params.yaml").write_text(PARAMS)
        with pytest.raises(SystemExit) as done:
            app(["crawl", "--classes", NAMES, "--per-class", str(WANTED)], prog_name="pipeline")
    assert not done.value.code, capsys.readouterr().err

    queries = {one.name: one.queries[0] for one in load_classes(NAMES).classes}
    assert {query for query, _ in asked(engine)} == set(queries.values())
    rows = pq.read_table(folder / "data/crawl/manifest.parquet").to_pylist()
    assert {(row["class"], row["query"], row["label"]) for row in rows} == {
        (name, queries[name], label) for label, name in enumerate(names)
    }
    assert {row["outcome"] for row in rows} == {"stored"}
    assert {row["url"] for row in rows} == {
        f"http://1.test/{number}.jpg" for query in found.values() for number in query
    }
    summary = json.loads((folder / "reports/crawl.json").read_text())
    assert [one["name"] for one in summary["classes"]] == names

    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    known = ("a/b/params.yaml", "a/b/data", "a/b/reports", "a/b/.cache")
    assert all(path in ("a", "a/b") or path.startswith(known) for path in written)
    for path in written:
        assert not any(sign in path for sign in "&#日<$`;") and ".." not in path, path


def test_names_written_for_programs_are_asked_for_as_people_write_them(
    tmp_path, monkeypatch, capsys
):
    def answer(query, first):
        return page(*({"murl": f"http://1.test/{query[0]}{n}.jpg"} for n in range(2 - first)))

    images = Host({f"/a{n}.jpg": image(n) for n in range(2)} | {"/s0.jpg": image(7)})
    engine = answering(answer)
    with serving(engine, images) as hosts:

        @contextmanager
        def fake_engine(section, classes, console):
            yield bing(), hosts

        monkeypatch.setattr(sources, "engine_for", fake_engine)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "params.yaml").write_text(
            "crawl: {per_class: 1, expand: none, filters: false, canary: false}\n"
            "distill: {batch_size: 2, held_out: 0}"
        )
        with pytest.raises(SystemExit) as done:
            app(["crawl", "--classes", "aquarium_fish,SeaLake"], prog_name="pipeline")
    said = capsys.readouterr()
    assert not done.value.code, said.err
    assert {query for query, _ in asked(engine)} == {"aquarium fish", "sea lake"}
    rows = pq.read_table(tmp_path / "data/crawl/manifest.parquet").to_pylist()
    assert {(row["class"], row["query"]) for row in rows} == {
        ("aquarium_fish", "aquarium fish"),
        ("SeaLake", "sea lake"),
    }
    assert "aquarium_fish → aquarium fish, SeaLake → sea lake" in said.err
