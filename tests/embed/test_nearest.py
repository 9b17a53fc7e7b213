from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.console import no_progress
from pipeline.embed.features import embed, kept_images
from pipeline.embed.index import build_index
from pipeline.errors import UserError
from pipeline.models.checkpoint import save_model
from stages.nearest import nearest


@pytest.fixture
def workspace(crawled, tmp_path, monkeypatch):
    """What crawl, dedup, teacher and embed leave, in the current folder."""
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), crawled.network, crawled.config)
    embed(
        kept_images(crawled.verdicts()),
        Path("data/crawl"),
        crawled.network,
        crawled.config,
        Path("data/embed"),
        batch_size=8,
        fit="crop",
        device=torch.device("cpu"),
        advance=no_progress,
    )
    build_index(np.load("data/embed/features.npy"), Path("data/embed/index.faiss"))
    return crawled


def test_an_embedded_image_is_nearest_to_itself_by_id_and_by_file(workspace):
    image = workspace.images[4]
    Path("query.png").write_bytes(image.data)
    by_id, by_prefix, by_file = (
        nearest(name, 5) for name in (image.id, image.id[:12].upper(), "query.png")
    )
    for found in (by_id, by_prefix, by_file):
        assert found[0] == {
            "id": image.id,
            "cosine": 1.0,
            "class": f"class {image.label}",
            "url": "https://a.example/4.png",
            "page_url": "https://a.example/4",
            "licence": "CC BY",
        }
        cosines = [row["cosine"] for row in found]
        assert cosines == sorted(cosines, reverse=True)
    assert by_id == by_prefix
    assert [row["id"] for row in by_file] == [row["id"] for row in by_id]


def test_neighbours_are_kept_images_only(workspace):
    found = nearest(workspace.images[1].id, 100)
    assert {row["id"] for row in found} == {workspace.images[row].id for row in workspace.kept}


def test_the_origin_of_an_image_is_the_url_that_it_was_stored_from(workspace):
    assert nearest(workspace.images[1].id, 1)[0]["url"] == "https://a.example/1.png"


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
