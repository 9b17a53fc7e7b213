"""Refined images on the page: beside the ones they were, with the distance of each layer."""

import base64
import io
import re

import numpy as np
from PIL import Image

from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.report.page import ReportFiles, build_report
from tests.report.test_sections import change, gallery, section

LAYERS = [
    {"name": "bn1", "before": 0.2, "after": 0.1},
    {"name": "layers.0.<b>", "before": 0.08, "after": 0.01},
]
FIGURES = {
    "steps": 8,
    "before": 0.14,
    "after": 0.055,
    "moved": 0.1832,
    "same_class": 0.925,
    "layers": LAYERS,
}


def refined(files: ReportFiles) -> np.ndarray:
    """Leaves refined images of which row r is lighter by r levels, the first ten seen otherwise."""
    embeddings = Embeddings.open(files.embed)
    pixels = np.array(embeddings.pixels)
    lighter = pixels + np.arange(len(pixels), dtype=np.uint8)[:, None, None, None] % 14
    np.save(files.embed / "refined.npy", lighter)
    logits = np.array(embeddings.logits)
    logits[:10] = np.roll(logits[:10], 1, axis=1)
    np.save(files.embed / "refined_logits.npy", logits)
    change(files.embedded, refine=FIGURES)
    return pixels


def test_without_any_the_page_says_which_parameter_makes_them(html: str) -> None:
    assert "There are none: embed.refine is 0." in gallery(html, "refined")
    assert 'id="refined-section"' not in html and "#refined-section" not in html


def test_figures_and_the_distance_of_each_layer_are_told(files: ReportFiles) -> None:
    refined(files)
    html = build_report(files, thumbnails=2, map_images=0)
    text = section(html, "refined-section")
    assert "changed by 8 steps" in text
    assert "0.140 → 0.055 mean over 2 batch norms" in text
    assert "0.183 deviations" in text and "92.5%" in text
    assert "layers.0.&lt;b&gt; 0.0800 0.0100" in text
    assert "Distance over 2 layers: as they were from 0.2 to 0.08; refined from 0.1 to 0.01" in html
    assert '<a href="#refined-section">' in html


def test_the_most_changed_images_come_first_each_beside_itself(files: ReportFiles) -> None:
    refined(files)
    part = gallery(build_report(files, thumbnails=60, map_images=0), "refined")
    levels = [float(one) for one in re.findall(r"([\d.]+) of 255", part)]
    assert levels == sorted(levels, reverse=True)
    assert part.count('alt="Refined"') == len(levels) == 24
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"), float).mean()
        for uri in re.findall(r"data:image/webp;base64,([^\"]+)", part)
    ]
    changes = np.diff(np.array(pictures).reshape(-1, 2), axis=1)[:, 0]
    np.testing.assert_allclose(changes, levels, atol=4)  # as WebP keeps them
    assert re.search(r"another answer\s*</label>", part), "of the first ten"
    assert re.search(r"same answer\s*</label>", part)
