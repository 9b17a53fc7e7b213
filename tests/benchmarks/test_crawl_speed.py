"""The crawl benchmark runs in small, counts what was saved, and computes its ratios."""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image

from benchmarks.crawl_speed import Bench, main
from benchmarks.crawl_web import PICTURES, image


@contextmanager
def benchmark(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.crawl_speed", "--quick", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


def output_of(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output


def rows(output: str) -> dict[str, list[str]]:
    """Cells of every table row by the first one."""
    lines = [line.strip("| ").split("|") for line in output.splitlines() if line[:1] == "|"]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def made_up(**runs: list[dict[str, float]]) -> Bench:
    bench = Bench(argparse.Namespace(), [], None)
    bench.runs["C"] = runs
    return bench


@pytest.mark.slow
def test_every_arm_saves_every_image_and_hostile_bodies_are_survived(tmp_path):
    path = tmp_path / "found.json"
    # at once, because icrawler does nothing for 5 s at the end of every class
    with (
        benchmark("--scenarios", "A", "--arms", "ours,bare,icrawler") as plain,
        benchmark("--scenarios", "BE", "--arms", "ours,bare", "--json", str(path)) as others,
    ):
        other, output = rows(output_of(others)), output_of(plain)
    assert "2 classes × 5 images" in output
    table = rows(output)
    for arm in ("ours", "ours with search", "icrawler", "bare"):
        assert table[arm][5] == "10", arm
    assert table["icrawler"][6].endswith("×")
    assert table["A: wall clock, icrawler / ours"][2] in ("met", "**missed**")
    assert table["B: active rate, ours / img2dataset"][2] == "not measured"

    runs = json.loads(path.read_text())["runs"]
    assert [run["saved"] for arm in ("ours", "bare") for run in runs["B"][arm]] == [5, 5]
    assert other["E: images saved among them"][1:] == ["10.00", "met"]
    assert other["E: peak MB among hostile bodies"][2] == "met"
    assert 0 < runs["queue"]["ours"][0]["peak_mb"] < 500


def test_img2dataset_is_left_out_loudly_where_it_is_not(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crawl_speed", "--arms", "img2dataset"])
    main()
    output = capsys.readouterr().out
    assert "img2dataset is LEFT OUT" in output
    assert "pip --python /tmp/i2d/bin/python install img2dataset" in output


def test_ratios_are_of_rounds_and_missing_images_are_named(capsys):
    ours = [
        {"wall": 1, "rate": rate, "images": 8, "saved": 8, "server_rate": 1} for rate in (10, 60)
    ]
    other = [
        {"wall": 1, "rate": rate, "images": 8, "saved": saved, "server_rate": 1}
        for rate, saved in ((10, 8), (20, 7))
    ]
    bench = made_up(ours=ours, icrawler=other)
    assert bench.ratio("C", "icrawler") == pytest.approx((1 + 3) / 2)
    assert bench.ratio("C", "bare") is None
    bench.show("C", "")
    table = rows(capsys.readouterr().out)
    assert table["ours"][5] == "8" and table["icrawler"][5] == "**only 7**"


def test_every_number_is_another_image_of_the_wanted_size():
    served = [image(0, number) for number in range(2 * PICTURES)]
    assert len(set(served)) == len(served)
    assert all(15_000 < len(data) < 77_000 for data in served)
    with Image.open(io.BytesIO(served[PICTURES + 1])) as picture:
        picture.load()
        assert picture.info["comment"] == str(PICTURES + 1).encode()
    assert image(1, 0) != image(0, 0)
