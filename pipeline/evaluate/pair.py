"""Pair of a teacher and a student that answer the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kd3_pipeline.console import Advance
from kd3_pipeline.evaluate.corruptions import KINDS, SEVERITIES, corrupted
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.evaluate.styles import Style
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.pixelstore import Pixels

CORRUPTION_COLUMNS = ("corruption", "severity", "teacher", "student")
CorruptionRow = tuple[str, int, float, float]  # the last two are accuracies


@dataclass(frozen=True)
class Pair:
    """Both networks by name, `teacher` before `student`, and how to run them."""

    networks: dict[str, Network]
    configs: dict[str, ModelConfig]
    batch_size: int
    device: torch.device

    def logits(self, who: str, pixels: Pixels, advance: Advance) -> np.ndarray:
        """One network's logits, float32 [N, C], of pixels uint8 [N, S, S, 3]."""
        network, of = self.networks[who], self.configs[who]
        return logits_of(network, pixels, of.mean, of.std, self.batch_size, self.device, advance)

    def accuracies(self, pixels: Pixels, labels: np.ndarray, advance: Advance) -> dict[str, float]:
        """Share of right answers of each network; `advance` is called 2 N times in all."""
        return {
            who: float((self.logits(who, pixels, advance).argmax(axis=1) == labels).mean())
            for who in self.networks
        }

    def under_corruption(
        self, pixels: Pixels, labels: np.ndarray, seed: int, advance: Advance
    ) -> list[CorruptionRow]:
        """Accuracies under each kind and severity; `advance` is called 150 N times in all."""
        rows = []
        for kind in KINDS:
            for severity in SEVERITIES:
                right = np.zeros(2)
                for start in range(0, len(pixels), self.batch_size):
                    part = slice(start, start + self.batch_size)
                    images = corrupted(pixels[part], kind, severity, seed, start)
                    shares = self.accuracies(images, labels[part], advance)
                    right += len(images) * np.array(list(shares.values()))
                teacher, student = (right / len(pixels)).round(4).tolist()
                rows.append((kind, severity, teacher, student))
        return rows

    def by_style(self, styles: Sequence[Style], advance: Advance) -> list[dict[str, object]]:
        """Name, images and both accuracies of each style."""
        rows = []
        for style in styles:
            shares = self.accuracies(style.pixels, style.labels, advance)
            row = {"name": style.name, "images": len(style.labels)}
            rows.append(row | {who: round(share, 4) for who, share in shares.items()})
        return rows
