"""Web images that a student learns from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.distill.loader import Resident, Streamed, open_pixels
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.params import Distill, Sampling
from kd3_pipeline.pixels import to_device


@dataclass(frozen=True)
class WebImages:
    """Pixels of N images, the teacher's logits [N, C] for them, and which to train on.

    Of K views of each image (`embed.crops`), view k of row r is at place k·N + r of the pixels,
    uint8 [K·N, S, S, 3]. View 0 is the whole image, so that a row is its own place.

    Attributes:
        train: rows to train on, int64 on the CPU.
        held_out: rows that are never trained on, int64 on the CPU; they measure agreement.
        prior: how much the loss of each image counts, float32 [N] on the device, on average 1;
            those that count 0 are not trained on. None where all count alike.
        sampling: how images are drawn, as `distill.sampling` has it.
        moment_weights: of `embed`, float64 [N] on the CPU; None where they are not asked for.
        place_logits: the teacher's logits [K·N, C] for all places; None where K is 1.
    """

    ids: list[str]
    pixels: Resident | Streamed
    teacher_logits: Tensor
    train: Tensor
    held_out: Tensor
    prior: Tensor | None = None
    sampling: Sampling = "uniform"
    moment_weights: Tensor | None = None
    place_logits: Tensor | None = None

    @property
    def crops(self) -> int:
        """Views K of each image."""
        return len(self.pixels) // len(self.ids)

    def chances(self, rows: Tensor) -> Tensor | None:
        """How often each of rows (int64 on the CPU) is to be drawn beside the others.

        Returns:
            float64 of the length of `rows`, on the CPU, in any unit; None: all alike.
        """
        if self.sampling == "moments":
            assert self.moment_weights is not None
            return self.moment_weights[rows]
        if self.sampling == "balanced":
            answers = self.teacher_logits.argmax(dim=1).cpu()[rows]
            return 1 / answers.bincount().double()[answers]
        return None

    def drawn(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Places of one view of each of the rows, all alike likely; both int64 on the CPU."""
        if self.crops == 1:
            return rows
        view = torch.randint(self.crops, (len(rows),), generator=generator)
        return view * len(self.ids) + rows

    def answers(self, places: Tensor) -> Tensor:
        """The teacher's logits [B, C] for places (int64 on the CPU), gathered on the device."""
        logits = self.teacher_logits if self.place_logits is None else self.place_logits
        return logits.index_select(0, to_device(places, logits.device))

    def weights(self, rows: Tensor) -> Tensor | None:
        """`prior` of rows (int64 on the CPU), gathered on the device, which is not waited for."""
        if self.prior is None:
            return None
        return self.prior.index_select(0, to_device(rows, self.prior.device))

    def holding_out(self, share: float) -> "WebImages":
        """The same images with at least `share` of them held out; none of these is released."""
        train, held = _split(self.ids, share, self.prior)
        out = set(self.held_out.tolist())
        if not out.issubset(held.tolist()):
            raise ValueError(f"{share} holds out fewer images than now")
        return replace(self, train=train, held_out=held)


def load_web_images(folder: Path, section: Distill, device: torch.device) -> WebImages:
    """Reads the output of `embed`: its pixels, its logits and the scores that are asked for.

    Of refined images, where `embed` left them and `distill.refined` is on, the teacher's answers
    are those to them, and agreement is measured on them, too.

    An image is held out by its content alone, so it stays so when others are crawled again.

    Raises:
        UserError: a file is missing, or they do not belong together; or `embed` has left no
            score that is asked for.
    """
    embeddings = Embeddings.open(folder)
    shown, known = embeddings.training(section.refined)
    pixels = open_pixels(shown, device, section.pixels)
    places = torch.from_numpy(np.array(known)).to(device)
    logits = places[: len(embeddings)]
    prior = _prior(embeddings, section)
    train, held = _split(embeddings.ids, section.held_out, prior)
    if prior is not None:
        # relative to their mean, so that a learning rate means what it does without them
        prior = (prior / prior[train].mean()).to(device)
    moments = None
    if section.sampling == "moments":
        weights = embeddings.score("moment_weight", "embed.moments")
        moments = torch.from_numpy(weights).double()
    several = places if embeddings.crops > 1 else None
    about = (embeddings.ids, pixels, logits, train, held, prior)
    return WebImages(*about, section.sampling, moments, several)


def usual_share(web: WebImages) -> float:
    """Share of the held-out images, of which there are some, with the teacher's commonest answer.

    What never says anything else agrees with the teacher on so many.
    """
    answers = web.teacher_logits[web.held_out.to(web.teacher_logits.device)].argmax(dim=1)
    return round(float(answers.bincount().max()) / len(answers), 4)


def _prior(embeddings: Embeddings, section: Distill) -> Tensor | None:
    """1 − w × `off_topic` for each image, 0 where it is skipped; None where all count alike."""
    if not section.off_topic_weight and not section.skip_redundant:
        return None
    prior = torch.ones(len(embeddings))
    if section.off_topic_weight:
        off_topic = torch.from_numpy(embeddings.score("off_topic", "embed.off_topic"))
        prior -= section.off_topic_weight * off_topic
    if section.skip_redundant:
        prior *= 1 - torch.from_numpy(embeddings.score("redundant", "embed.redundant"))
    return prior


def _split(ids: list[str], held_out: float, prior: Tensor | None) -> tuple[Tensor, Tensor]:
    out = torch.tensor([int(name[:8], 16) / 2**32 < held_out for name in ids], dtype=torch.bool)
    counts = torch.ones_like(out) if prior is None else (prior > 0).cpu()
    return (counts & ~out).nonzero().flatten(), out.nonzero().flatten()
