"""The benchmark of the normalisation check."""

import sys
from dataclasses import replace

import numpy as np

from benchmarks import normalisation as bench
from kd3_pipeline.teacher.normalisation import CONFIGURED, NORMALISATIONS, check_normalisation


def test_a_smoke_run_has_a_row_for_each_normalisation_of_each_teacher(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["normalisation", "--smoke"])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    for name in ("ours, resnet8", "ours, vit"):
        rows = [line for line in lines if line.startswith(f"| {name} |")]
        assert len(rows) == len(NORMALISATIONS) + 1  # and the other order of colours
        assert sum("(right)" in row for row in rows) == 1
    counts = [[int(cell) for cell in line.split("|")[2:5]] for line in lines[-3:]]
    assert np.sum(counts) == 2 * 2 * len(NORMALISATIONS)  # teachers, sets of images


def test_a_check_of_another_normalisation_is_had_without_passing_anew():
    pixels, _ = bench.random_images(64, 0)
    right, other = "none, 0 to 1", "ImageNet"
    network = bench.build("resnet8", 10)
    network.train()
    network(bench.normalise(bench.torch.from_numpy(pixels), *NORMALISATIONS[right]))
    for module in network.eval().modules():
        if hasattr(module, "num_batches_tracked"):
            module.num_batches_tracked.fill_(1000)  # it is for the form, not for the verdict
    said = check_normalisation(network, bench.config_of(NORMALISATIONS[right]), pixels)
    asked = check_normalisation(network, bench.config_of(NORMALISATIONS[other]), pixels)
    found = bench.as_if(said, right, other)
    assert (found.verdict, found.better) == (asked.verdict, asked.better)
    values = {one.name: one.first for one in found.measurements}
    assert values == {one.name: one.first for one in asked.measurements}
    assert replace(found.measurements[0], name=CONFIGURED) == found.measurements[0]
