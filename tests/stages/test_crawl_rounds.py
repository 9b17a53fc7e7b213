"""`crawl.rounds`: a teacher says which classes are starved, and the web is asked for more."""

import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.network import pool
from kd3_pipeline.pixels import normalise
from kd3_stages import sources
from kd3_stages.cli import app
from kd3_stages.steps.teacher_labels import matched
from tests.crawl.hosts import Host, serving
from tests.crawl.searching import answering, asked, bing, page

PARAMS = """
crawl: {classes: [red_fox, blue tit], engine: bing, per_class: 10, host_gap: 0, robots: false}
distill: {batch_size: 8}
"""
LIMITS = ["crawl.expand=none", "crawl.filters=false", "crawl.canary=false"]
MEAN, STD = [0.5] * 3, [0.25] * 3
RED, BLUE = (0, 1)


def pixels(colour: int, seed: int) -> np.ndarray:
    """A picture in noisy red or blue."""
    values = np.random.default_rng([colour, seed]).integers(0, 60, (32, 32, 3), dtype=np.uint8)
    values[..., 2 * colour] += 180
    return values


def picture(colour: int, seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(colour, seed)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose classifier is fitted to tell red from blue."""
    torch.manual_seed(0)
    network = build("resnet8", 2).eval()
    shown = np.stack([pixels(colour, 1000 + seed) for seed in range(16) for colour in (RED, BLUE)])
    with torch.no_grad():
        maps = network.features(normalise(torch.from_numpy(shown), MEAN, STD))
        features = torch.cat([pool(maps), torch.ones(len(shown), 1)], dim=1)
        target = torch.eye(2).repeat(16, 1)
        weights = torch.linalg.lstsq(features, target, driver="gelsd").solution
        network.fc.weight.copy_(weights[:-1].T)
        network.fc.bias.copy_(weights[-1])
    folder = tmp_path_factory.mktemp("teacher")
    architecture = {"name": "resnet8", "num_classes": 2}
    config = ModelConfig(architecture, ["Red-Fox", "blue_tit"], MEAN, STD, 32, "a test")
    save_model(folder, network, config)
    return folder


class Crawl:
    """The command on a web where a search for blue tits gives red foxes first."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, teacher: Path | None) -> None:
        self.folder = folder
        monkeypatch.chdir(folder)
        (folder / "params.yaml").write_text(PARAMS)
        if teacher is not None:
            (folder / "models").mkdir()
            (folder / "models/teacher").symlink_to(teacher)
        self.engine = answering(self.answer)
        self.images = Host()
        self.images.otherwise = self.image
        self.of_tits, self.foxes_first = 60, 12
        monkeypatch.setattr(sources, "engine_for", self.engine_for)
        self.hosts: dict = {}

    def answer(self, query: str, first: int) -> bytes:
        last = min(first + 20, self.of_tits if "tit" in query else 60)
        name = query.replace(" ", "-")
        return page(*({"murl": f"http://1.test/{name}/{n}.png"} for n in range(first, last)))

    def image(self, request) -> None:
        if not request.path.endswith(".png"):
            request.reply(b"", 404)
            return
        _, name, file = request.path.split("/")
        number = int(file.removesuffix(".png"))
        blue = name == "blue-tit" and number >= self.foxes_first
        kind = {"Content-Type": "image/png"}
        body = picture(BLUE if blue else RED, zlib.crc32(name.encode()) + number)
        request.reply(body, 200, kind)

    @contextmanager
    def engine_for(self, section, classes, console):
        yield bing(), self.hosts

    def run(self, *options: str) -> int:
        limits = [word for one in LIMITS for word in ("--set", one)]
        try:
            app(["crawl", *limits, *options], prog_name="pipeline")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    def each_image_once(self) -> bool:
        counts = self.images.requests.items()
        return {count for path, count in counts if path.endswith(".png")} == {1}

    @property
    def coverage(self) -> dict:
        return json.loads((self.folder / "reports/crawl.json").read_text())["coverage"]


@pytest.fixture
def crawl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Path) -> Iterator[Crawl]:
    crawl = Crawl(tmp_path, monkeypatch, teacher)
    with serving(crawl.engine, crawl.images) as crawl.hosts:
        yield crawl


def rows(folder: Path) -> list[dict]:
    return pq.read_table(folder / "data/crawl/manifest.parquet").to_pylist()


def test_a_starved_class_gets_more(crawl: Crawl, capsys: pytest.CaptureFixture) -> None:
    assert crawl.run("--set", "crawl.rounds=2") == 0
    said = capsys.readouterr()
    # ten pictures of a search for tits show foxes: ten more are asked for, of which eight show tits
    assert crawl.coverage["rounds"] == [{"asked_more": 10, "new_images": 10}]
    assert crawl.coverage["classes"] == [
        {"name": "red_fox", "stored": 10, "teacher_says": 22, "asked_more": 0, "starved": False},
        {"name": "blue tit", "stored": 20, "teacher_says": 8, "asked_more": 10, "starved": False},
    ]
    assert "class     stored  teacher says  asked more" in said.out
    assert (
        "coverage: 1 round asked for 10 images more and brought 10; no class is starved" in said.out
    )
    stored = [one["class"] for one in rows(crawl.folder) if one["outcome"] == "stored"]
    assert (stored.count("red_fox"), stored.count("blue tit")) == (10, 20)
    assert crawl.each_image_once()


def test_without_rounds_the_teacher_is_not_asked(crawl: Crawl) -> None:
    assert crawl.run() == 0
    assert "coverage" not in json.loads((crawl.folder / "reports/crawl.json").read_text())
    stored = [one["class"] for one in rows(crawl.folder) if one["outcome"] == "stored"]
    assert (stored.count("red_fox"), stored.count("blue tit")) == (10, 10)


def test_the_same_again_asks_the_web_for_nothing(crawl: Crawl) -> None:
    assert crawl.run("--set", "crawl.rounds=2") == 0
    before = rows(crawl.folder), crawl.coverage
    queries = len(asked(crawl.engine))
    assert crawl.run("--set", "crawl.rounds=2") == 0
    assert (rows(crawl.folder), crawl.coverage) == before
    assert len(asked(crawl.engine)) == queries
    assert crawl.each_image_once()


def test_rounds_end_where_the_web_ends(crawl: Crawl, capsys: pytest.CaptureFixture) -> None:
    crawl.of_tits, crawl.foxes_first = 15, 60
    assert crawl.run("--set", "crawl.rounds=9") == 0
    assert crawl.coverage["ended"] == "the last one brought nothing new"
    assert [one["new_images"] for one in crawl.coverage["rounds"]] == [5, 0]
    assert crawl.coverage["classes"][1]["starved"]
    assert "starved still: 1 of 2" in capsys.readouterr().out


def test_a_class_that_the_teacher_lacks_is_told(
    crawl: Crawl, capsys: pytest.CaptureFixture
) -> None:
    assert crawl.run("--set", "crawl.rounds=1", "--set", "crawl.classes=[red fox, wren]") == 0
    assert "not judged, since the teacher has no such class: wren" in capsys.readouterr().err
    assert crawl.coverage["classes"][1]["teacher_says"] is None
    assert crawl.coverage["rounds"] == []


def test_a_teacher_of_other_things_is_refused(crawl: Crawl, capsys: pytest.CaptureFixture) -> None:
    assert crawl.run("--set", "crawl.rounds=1", "--classes", "wren,owl") == 2
    said = capsys.readouterr().err
    assert "knows none of the classes" in said and "Red-Fox, blue_tit" in said
    assert asked(crawl.engine) == []


def test_without_a_teacher_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    crawl = Crawl(tmp_path, monkeypatch, None)
    assert crawl.run("--set", "crawl.rounds=1") == 2
    assert "dvc repro teacher" in capsys.readouterr().err
    assert asked(crawl.engine) == []


@pytest.mark.parametrize(
    "names, of_teacher, found",
    [
        (["cat", "dog"], ["dog", "cat"], {0: 1, 1: 0}),
        (["aquarium_fish", "AnnualCrop"], ["annual crop", "Aquarium-Fish"], {0: 1, 1: 0}),
        (["cat", "dog"], ["class 0", "class 1"], {0: 0, 1: 1}),
        (["cat", "dog"], ["class 0", "class 1", "class 2"], {}),
        (["cat", "class 0"], ["class 0", "class 1"], {0: 1}),
        (["sea_lake", "SeaLake"], ["sea lake"], {}),
        (["tench, Tinca tinca"], ["tench"], {0: 0}),
        (["caf\u00e9"], ["tea", "cafe\u0301"], {1: 0}),
        (["cat"], ["wren"], {}),
    ],
)
def test_classes_of_a_teacher_are_those_of_the_crawl_by_name(names, of_teacher, found) -> None:
    assert matched(names, of_teacher) == found
