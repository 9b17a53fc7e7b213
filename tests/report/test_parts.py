"""Thumbnails, choice of images, links and drawings, each by itself."""

import base64
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd3_pipeline.report.figures import Series, curve_charts, line_chart, number, ticks
from kd3_pipeline.report.inputs import Curves
from kd3_pipeline.report.sampling import extremes, spread
from kd3_pipeline.report.stored import read_images
from kd3_pipeline.report.tables import confusion_matrix
from kd3_pipeline.report.thumbnails import encode_thumbnail
from kd3_pipeline.report.tiles import web_link
from tests.report.world import World, draw


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_thumbnail_of_each_format(kind: str) -> None:
    thumbnail = encode_thumbnail(draw(1, 2, kind, (400, 200)))
    assert thumbnail is not None
    assert (thumbnail.width, thumbnail.height) == (96, 48)
    assert decoded(thumbnail.uri).size == (96, 48)


def test_thumbnail_is_turned_upright_and_without_metadata() -> None:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera that tells where it was"
    Image.new("RGB", (400, 200), "red").save(out, "JPEG", exif=exif)
    thumbnail = encode_thumbnail(out.getvalue())
    assert thumbnail is not None
    assert (thumbnail.width, thumbnail.height) == (48, 96)
    assert not decoded(thumbnail.uri).getexif()
    assert b"camera" not in base64.b64decode(thumbnail.uri.split(",", 1)[1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_thumbnail_of_each_mode(mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (20, 30)).save(out, "PNG")
    thumbnail = encode_thumbnail(out.getvalue())
    assert thumbnail is not None
    assert (thumbnail.width, thumbnail.height) == (20, 30)


def test_transparent_pixels_become_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(out, "PNG")
    thumbnail = encode_thumbnail(out.getvalue())
    assert thumbnail is not None
    assert min(decoded(thumbnail.uri).convert("RGB").getpixel((4, 4))) > 250


def test_bytes_that_are_no_image_of_the_crawl() -> None:
    icon, tiff = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (16, 16)).save(icon, "ICO")
    Image.new("RGB", (8, 8)).save(tiff, "TIFF")  # of files that the user has
    bomb = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(bomb, "PNG")
    whole = draw(1, 1)
    for data in (None, b"", b"<svg/>", icon.getvalue(), bomb.getvalue(), whole[: len(whole) // 2]):
        assert encode_thumbnail(data) is None
    assert encode_thumbnail(tiff.getvalue()) is not None


def test_spread_takes_from_every_label() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    chosen = spread(labels, np.arange(100), 12, np.random.default_rng(0))
    assert Counter(labels[chosen].tolist()) == {0: 5, 1: 5, 2: 2}
    assert len(set(chosen.tolist())) == 12


def test_extremes() -> None:
    times = np.array([5, 0, 3, 9, 9, 1])
    rng = np.random.default_rng(0)
    assert set(extremes(times, np.arange(6), 2, rng, -1).tolist()) == {3, 4}
    assert extremes(times, np.arange(6), 3, rng, 1).tolist() == [1, 5, 2]


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "//host/x",
        "http://",
        "https://[broken/",
        'https://a"b/',
        "ftp://host/",
        "https://host/" + "x" * 2000,
        "",
        None,
    ],
)
def test_links_that_are_not_made(url: str | None) -> None:
    assert web_link(url) == ("", "")


def test_link_shows_the_host_that_is_asked() -> None:
    assert web_link(None, "https://bank.example@evil.example/a")[1] == "evil.example"
    assert web_link("ftp://a/", "http://b/") == ("http://b/", "b")


def test_ticks_are_round_and_span() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1])
    for low, high in [(0.013, 0.92), (-3, 17), (5, 5), (0, 0), (1e-6, 3e-6), (0, 48_000)]:
        marks = ticks(low, high)
        assert marks[0] <= low + 1e-12
        assert marks[-1] >= high - 1e-12
        assert 2 <= len(marks) <= 7


def test_numbers() -> None:
    assert number(0.05, 0.02) == "0.05"
    assert number(12345) == "12,345"
    assert number(0.00123) == "0.00123"
    assert number(math.nan) == "–"


def test_chart_escapes_names_and_survives_gaps() -> None:
    values = [math.nan, 1.0, math.nan, 2.0, 3.0]
    chart = line_chart("<b>", [1, 2, 3, 4, 5], [Series('"><script>', values)])
    assert "<script>" not in chart.svg
    assert "<b>" not in chart.svg
    assert chart.svg.count("M") == 2
    assert "nan" not in chart.svg


def test_charts_of_an_open_set_of_columns() -> None:
    columns = {"loss": [1.0], "new term": [2.0], "kept": [250.0], "empty": [math.nan]}
    charts = curve_charts(Curves([1.0], columns, ()))
    assert [chart.heading for chart in charts] == ["Loss", "Loss term: new term", "Images kept"]
    assert curve_charts(Curves([], {"loss": []}, ())) == []


def test_confusion_matrix_counts() -> None:
    pairs = Counter({("a", "a"): 8, ("a", "b"): 2, ("b", "b"): 5, ("b", "unheard of"): 1})
    matrix = confusion_matrix(pairs, ("a", "b"))
    assert (matrix.images, matrix.wrong) == (16, 3)
    assert [[cell.count for cell in cells] for _, cells in matrix.rows] == [
        [8, 2, 0],
        [0, 5, 1],
        [0, 0, 0],
    ]


def test_largest_confusions_of_many_classes() -> None:
    names = tuple(f"{index:02d}" for index in range(40))
    pairs = Counter({(name, name): 10 for name in names})
    pairs["03", "07"], pairs["09", "01"] = 5, 6
    matrix = confusion_matrix(pairs, names)
    assert [(c.actual, c.seen, c.count) for c in matrix.largest] == [
        ("09", "01", 6),
        ("03", "07", 5),
    ]
    assert matrix.largest[0].share == pytest.approx(6 / 16)
    assert decoded(matrix.heat).size == (matrix.side, matrix.side)


def test_held_out_images_are_counted_apart_from_those_never_selected(tmp_path: Path) -> None:
    files = World().write(tmp_path)
    table = pq.read_table(files.selection)
    never = [row for row, times in enumerate(table["times_kept"].to_pylist()) if not times]
    held_out = [row in never[:3] for row in range(table.num_rows)]
    column = table.schema.get_field_index("held_out")
    pq.write_table(table.set_column(column, "held_out", [held_out]), files.selection)
    images = read_images(files.dedup, files.selection)
    assert images.held_out == 3
    assert (images.times == 0).sum() == len(never) - 3
