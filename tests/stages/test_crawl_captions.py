"""The whole of `pipeline crawl` from a caption table: images of 20 classes with their licences."""

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.http import Web
from kd3_stages import sources
from tests.crawl.hosts import Host, image, reply, serving
from tests.pages import blocks
from tests.stages.workspace import invoke

CLASSES = [
    *("airplane", "badger", "bicycle", "bridge", "butterfly", "castle", "cat", "chair", "dog"),
    *("fire truck", "guitar", "hot dog", "lighthouse", "mushroom", "red fox", "roe deer"),
    *("sailing boat", "tractor", "truck", "C++"),
]
EACH = 4  # rows of a class, one of them with a dead address
LICENCES = ["CC BY 4.0", "CC0", "https://creativecommons.org/licenses/by-nc/2.0/", ""]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(
        f"crawl: {{classes: {json.dumps(CLASSES)}, engine: captions, source: tables, per_class: 2,"
        " connections_per_host: 16}\ndistill: {batch_size: 8}\n"
    )
    (tmp_path / "tables").mkdir()
    return tmp_path


def table() -> pa.Table:
    """Rows that name a class, each a few times, among others that name none."""
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(EACH):
            rows.append(
                {
                    "URL": f"http://0.test/{label}/{number}.jpg",
                    "TEXT": f"{name.title()} number {number} \x1b[31m",
                    "LICENSE": LICENCES[number],
                    "similarity": 0.3 - number / 100,
                    "NSFW": "UNLIKELY",
                }
            )
            rows.append(rows[-1] | {"URL": f"http://0.test/none/{label}", "TEXT": f"x{name}s"})
    return pa.Table.from_pylist(rows)


def crawled(
    project: Path, monkeypatch: pytest.MonkeyPatch, *options: str, code: int = 0
) -> tuple[dict, str]:
    """What a crawl of the tables gives, and what it says on stderr."""
    routes = {
        f"/{label}/{number}.jpg": image(EACH * label + number)
        for label in range(len(CLASSES))
        for number in range(EACH)
        if number != 1
    }
    host = Host(routes | {"/robots.txt": reply(b"", 404)})
    with serving(host) as hosts:
        monkeypatch.setattr(sources, "Web", lambda agent, *_, **__: Web(agent, hosts))
        done = invoke(project, "crawl", "--json", *options, check=False)
    assert done.exit_code == code, done.stderr
    assert not any(path.startswith("/none/") for path in host.requests)
    return json.loads(done.stdout), done.stderr


def test_images_of_20_classes_come_with_their_licences(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table()
    pq.write_table(rows.slice(0, 81), project / "tables/a.parquet", row_group_size=10)
    pcsv.write_csv(rows.slice(81), project / "tables/b.csv")
    summary, said = crawled(project, monkeypatch)
    assert summary["stored"] == 2 * len(CLASSES)
    assert [one["stored"] for one in summary["classes"]] == [2] * len(CLASSES)
    assert f"captions: {len(rows)} rows read, of which {len(rows) // 2} name a class" in said
    manifest = pq.read_table(project / "data/crawl/manifest.parquet").to_pylist()
    licences = {row["URL"]: row["LICENSE"] for row in rows.to_pylist()}
    stored = [row for row in manifest if row["outcome"] == "stored"]
    for row in manifest:
        assert row["engine"] == "captions" and row["query"] == row["class"]
        assert row["class"] == CLASSES[int(row["url"].split("/")[3])] == CLASSES[row["label"]]
        stated = licences[row["url"]]
        assert (row["licence"], row["licence_url"]) == (
            ("CC BY-NC 2.0", stated) if stated.startswith("https:") else (stated, "")
        )
    assert (summary["captions"]["rows"], summary["captions"]["matched"]) == (160, 80)
    assert not summary["empty"] and not summary["short"]
    # the best by similarity, and the next that is there
    assert {row["licence"] for row in stored} == {"CC BY 4.0", "CC BY-NC 2.0"}
    assert summary["licences"] == {"CC BY 4.0": 20, "CC BY-NC 2.0": 20}


def test_the_same_again_asks_for_nothing_and_a_licence_is_kept_to(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table(), project / "tables/a.parquet")
    first, _ = crawled(project, monkeypatch)
    written = (project / "data/crawl/manifest.parquet").read_bytes()
    journal = (project / ".cache/crawl/journal.jsonl").read_bytes()
    assert crawled(project, monkeypatch)[0] == first
    assert (project / "data/crawl/manifest.parquet").read_bytes() == written
    assert (project / ".cache/crawl/journal.jsonl").read_bytes() == journal
    free, said = crawled(
        project, monkeypatch, "--set", "crawl.licence=commercial", "--set", "crawl.per_class=1"
    )
    assert free["licences"] == {LICENCES[0]: 20}
    assert "40 have no licence that crawl.licence (commercial) allows" in said


def test_a_class_that_no_caption_names_is_told_and_ends_with_3(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table().slice(8), project / "tables/a.parquet")  # without airplanes
    summary, said = crawled(project, monkeypatch, code=3)
    assert summary["stored"] == 2 * (len(CLASSES) - 1)
    assert summary["classes"][0]["why"] == "captions: 0 of 152 rows name it"
    assert summary["classes"][0]["queries"][0]["ended"] == "all rows were read"
    assert "no image of 1 of 20 classes: airplane" in said


def test_nothing_that_matches_is_an_error_before_anything_is_written(project: Path) -> None:
    (project / "tables/t.tsv").write_text("a tree\thttp://0.test/1\n")
    done = invoke(project, "crawl", check=False)
    assert done.exit_code == 3
    assert "captions: none of 1 rows has a caption with a query of a class" in done.stderr
    assert not (project / "data/crawl").exists()


def test_the_example_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = {
        kind: one.text
        for kind in ("csv", "sh", "text")
        for one in blocks(kind)
        if one.page.name == "captions.md"
    }
    words = shlex.split(page["sh"])
    assert words[:3] == ["pipeline", "crawl", "--engine"] and "--per-class" in words
    (tmp_path / "params.yaml").write_text("distill: {batch_size: 2}\n")
    table = page["csv"].replace("https://images.example", "http://0.test")
    (tmp_path / words[words.index("--source") + 1]).write_text(table)
    names = ("fox-1", "fox-2", "badger", "both")
    host = Host({f"/{name}.jpg": image(index) for index, name in enumerate(names)})
    with serving(host) as hosts:
        monkeypatch.setattr(sources, "Web", lambda agent, *_, **__: Web(agent, hosts))
        done = invoke(tmp_path, *words[1:])
    assert set(page["text"].splitlines()) <= {
        line.removeprefix("note: ") for line in done.stderr.splitlines()
    }
    rows = pq.read_table(tmp_path / "data/crawl/manifest.parquet").to_pylist()
    assert [(row["class"], row["url"].removeprefix("http://0.test/")) for row in rows] == [
        *(("red fox", "fox-1.jpg"), ("red fox", "both.jpg"), ("badger", "badger.jpg")),
    ]
    assert {row["outcome"] for row in rows} == {"stored"}
    assert not host.requests["/fox-2.jpg"]
    assert "badger: 1 of 2 images: captions: 1 of 4 rows name it" in done.stdout
