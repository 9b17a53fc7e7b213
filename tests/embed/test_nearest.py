import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kd3_pipeline.embed import neighbours
from kd3_pipeline.embed.index import build_index
from kd3_pipeline.embed.neighbours import Neighbours
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import save_model
from kd3_pipeline.store import read_table, write_table
from kd3_stages.cli import app

from .conftest import run


@pytest.fixture
def workspace(crawled, tmp_path, monkeypatch):
    """What crawl, dedup, teacher and embed leave, in the current folder."""
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), crawled.network, crawled.config)
    write_table(Path("data/dedup/images.parquet"), crawled.verdicts())
    run(crawled, Path("data/embed"))
    build_index(np.load("data/embed/features.npy"), Path("data/embed/index.faiss"))
    Path("params.yaml").write_text("embed: {device: cpu}")
    return crawled


def nearest(image: str, k: int) -> Neighbours:
    return neighbours.nearest(
        image,
        k,
        "crop",
        0,
        Embeddings.open(Path("data/embed")),
        Path("models/teacher"),
        Path("data/crawl/manifest.parquet"),
    )


def seen(workspace, image: str) -> str:
    """The class that the teacher sees in an embedded image."""
    row = [workspace.images[kept].id for kept in workspace.kept].index(image)
    return f"class {np.load('data/embed/logits.npy')[row].argmax()}"


def test_an_embedded_image_is_nearest_to_itself_by_id_and_by_file(workspace):
    image = workspace.images[4]
    Path("query.png").write_bytes(image.data)
    by_id, by_prefix, by_file = (
        nearest(name, 5) for name in (image.id, image.id[:12].upper(), "query.png")
    )
    for found in (by_id, by_prefix, by_file):
        assert found.predicted == seen(workspace, image.id)
        assert found.rows[0] == {
            "id": image.id,
            "cosine": 1.0,
            "class": f"class {image.label}",
            "predicted": seen(workspace, image.id),
            "title": "picture 4",
            "url": "https://a.example/4.png",
            "page_url": "https://a.example/4",
            "licence": "CC BY",
            "licence_url": "https://licence.example/by",
        }
        cosines = [row["cosine"] for row in found.rows]
        assert cosines == sorted(cosines, reverse=True)
    assert by_id == by_prefix
    assert (by_id.image, by_file.image) == (image.id, "query.png")
    assert [row["id"] for row in by_file.rows] == [row["id"] for row in by_id.rows]


def test_neighbours_are_kept_images_only(workspace):
    found = nearest(workspace.images[1].id, 100).rows
    assert {row["id"] for row in found} == {workspace.images[row].id for row in workspace.kept}
    assert all(row["predicted"] == seen(workspace, row["id"]) for row in found)


def test_the_origin_of_an_image_is_the_url_that_it_was_stored_from(workspace):
    assert nearest(workspace.images[1].id, 1).rows[0]["url"] == "https://a.example/1.png"


def test_a_crawl_of_before_there_were_addresses_of_licences_will_do(workspace):
    path = Path("data/crawl/manifest.parquet")
    write_table(path, read_table(path).drop(["licence_url"]))
    (found,) = nearest(workspace.images[1].id, 1).rows
    assert (found["licence"], found["licence_url"]) == ("CC BY", "")
    write_table(path, read_table(path).drop(["class"]))
    with pytest.raises(UserError, match=r"manifest\.parquet: no column 'class'"):
        nearest(workspace.images[1].id, 1)


@pytest.mark.parametrize("name", ["", "none.png", "zz"])
def test_an_unknown_image_is_an_error_of_the_user(workspace, name):
    with pytest.raises(UserError, match=rf"'{name}' is no file, and \d+ embedded ids begin"):
        nearest(name, 3)


def test_an_id_that_is_not_kept_or_not_unique_is_an_error_of_the_user(workspace):
    with pytest.raises(UserError, match="and 0 embedded ids begin with it"):
        nearest(workspace.images[0].id, 3)
    firsts = [workspace.images[row].id[0] for row in workspace.kept]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(UserError, match=r"and \d+ embedded ids begin with it"):
        nearest(twice, 3)


def test_a_file_that_is_no_image_is_an_error_of_the_user(workspace):
    Path("query.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"query\.png is not a whole image"):
        nearest("query.png", 3)


def test_before_embed_has_run_the_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"images\.parquet not found"):
        nearest("query.png", 3)


@pytest.mark.parametrize("name", ["logits.npy", "index.faiss"])
def test_a_file_that_embed_should_have_left_is_named(workspace, name):
    Path("data/embed", name).unlink()
    with pytest.raises(UserError, match=rf"{name}.*dvc repro embed"):
        nearest(workspace.images[1].id, 3)


def test_the_command_says_class_prediction_similarity_licence_and_url(workspace):
    image = workspace.images[4]
    result = CliRunner().invoke(app, ["neighbours", image.id, "--k", "3"])
    assert result.exit_code == 0, result.output
    first, *others = result.stdout.splitlines()
    assert first == (
        f"1.000  {image.id[:16]}  class {image.label}, seen as {seen(workspace, image.id)}"
        "  CC BY  https://a.example/4.png"
    )
    assert len(others) == 2


def test_the_command_writes_a_contact_sheet_beside_its_json(workspace):
    Path("query.png").write_bytes(workspace.images[0].data)  # an image that was not kept
    for asked in ("query.png", workspace.images[4].id):
        command = ["neighbours", asked, "--k", "4", "--html", "out/sheet.html", "--json"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        values = json.loads(result.stdout)
        assert values["image"] == asked and len(values["neighbours"]) == 4
        html = Path("out/sheet.html").read_text("utf-8")
        assert html.count('<img src="data:image/webp;base64,') == 5
        assert all(row["url"] in html for row in values["neighbours"])


def test_a_sheet_that_cannot_be_written_is_an_error_of_the_user(workspace):
    Path("wall").touch()
    command = ["neighbours", workspace.images[4].id, "--html", "wall/sheet.html"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "wall/sheet.html cannot be written" in result.output
