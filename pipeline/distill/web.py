"""Web images that a student learns from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.distill.loader import Resident, Streamed, open_pixels
from kd3_pipeline.embeddings import MOMENT_WEIGHT, Embeddings
from kd3_pipeline.params import Distill, Sampling
from kd3_pipeline.pixels import to_device

REFINED = "refined held-out web images"
WEIGHED = "held-out web images, counted by their moment weights"


@dataclass(frozen=True)
class Yardstick:
    """What agreement is measured on, so that runs on the same `data/embed` compare.

    The held-out images as near to the original domain as `embed` can bring them: refined, or
    counted by their moment weights (importance weighting; Sugiyama et al., "Covariate Shift
    Adaptation by Importance Weighted Cross Validation", JMLR 2007), whatever a run trains on.

    Attributes:
        pixels: uint8 [N, S, S, 3], of all images.
        logits: of the teacher for them, [N, C], on the device.
        weights: float32 [N] on the device, on average 1; None: all count alike.
        told: what it is, in words.
    """

    pixels: Resident | Streamed
    logits: Tensor
    weights: Tensor | None = None
    told: str = "held-out web images"

    def share(self, rows: Tensor, hits: Tensor) -> float:
        """Share of `rows` (int64) that are `hits` (bool [len(rows)]), both on the device."""
        counts = torch.ones_like(hits).float() if self.weights is None else self.weights[rows]
        counts = counts.clamp(min=1e-6)  # a few rows may all weigh nothing
        return round(float((counts * hits).sum() / counts.sum()), 4)


@dataclass(frozen=True)
class WebImages:
    """Pixels of N images, the teacher's logits [N, C] for them, and which to train on.

    Of K views of each image (`embed.crops`), view k of row r is at place k·N + r of the pixels,
    uint8 [K·N, S, S, 3]. View 0 is the whole image, so that a row is its own place.

    Attributes:
        train: rows to train on, int64 on the CPU.
        held_out: rows that are never trained on, int64 on the CPU; they measure agreement.
        among: rows that a run looks at, int64 on the CPU: it judges and asks the teacher about no
            others, and trains on some of them. None: all.
        prior: how much the loss of each image counts, float32 [N] on the device, on average 1;
            those that count 0 are not trained on. None where all count alike.
        sampling: how images are drawn, as `distill.sampling` has it.
        moment_weights: of `embed`, float64 [N] on the CPU; None where they are not asked for.
        place_logits: the teacher's logits [K·N, C] for all places; None where K is 1.
        measure: what agreement is measured on; None: these images as they are.
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
    measure: Yardstick | None = None
    among: Tensor | None = None

    @property
    def looked_at(self) -> Tensor:
        """Rows that a run looks at, int64 on the CPU."""
        return torch.arange(len(self.ids)) if self.among is None else self.among

    @property
    def yardstick(self) -> Yardstick:
        """What agreement is measured on."""
        return self.measure or Yardstick(self.pixels, self.teacher_logits)

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
        if self.among is not None:  # what was trained on, or held out, and nothing else
            known = torch.cat([self.train, self.held_out])
            train, held = (rows[torch.isin(rows, known)] for rows in (train, held))
        out = set(self.held_out.tolist())
        if not out.issubset(held.tolist()):
            raise ValueError(f"{share} holds out fewer images than now")
        return replace(self, train=train, held_out=held)


def load_web_images(folder: Path, section: Distill, device: torch.device) -> WebImages:
    """Reads the output of `embed`: its pixels, its logits and the scores that are asked for.

    Of refined images, where `embed` left them and `distill.refined` is on, the teacher's answers
    are those to them. Agreement is measured on them wherever they are. Where `embed` refined some
    images only, these alone are held out, and with `distill.refined` trained on.

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
    among = None
    if embeddings.refined_rows is not None and embeddings.surest_rows is not None:
        # agreement is on these in either case, so that such runs compare
        held = held[torch.isin(held, torch.from_numpy(embeddings.refined_rows))]
        if section.refined:
            train = train[torch.isin(train, torch.from_numpy(embeddings.surest_rows))]
            among = torch.from_numpy(embeddings.refined_rows)
    if prior is not None:
        # relative to their mean, so that a learning rate means what it does without them
        prior = (prior / prior[train].mean()).to(device)
    moments = None
    if section.sampling == "moments":
        weights = embeddings.score(MOMENT_WEIGHT, "embed.moments")
        moments = torch.from_numpy(weights).double()
    several = places if embeddings.crops > 1 else None
    about = (embeddings.ids, pixels, logits, train, held, prior)
    measure = _yardstick(embeddings, pixels, logits, section)
    return WebImages(*about, section.sampling, moments, several, measure, among)


def _yardstick(
    embeddings: Embeddings, pixels: Resident | Streamed, logits: Tensor, section: Distill
) -> Yardstick:
    """Held-out images are refined where `embed` has refined them, else counted by its weights."""
    if embeddings.refined:
        if section.refined:
            return Yardstick(pixels, logits, told=REFINED)
        count, device = len(embeddings), logits.device
        known = torch.from_numpy(np.array(embeddings.refined_logits[:count])).to(device)
        return Yardstick(Streamed(embeddings.refined_pixels, device), known, told=REFINED)
    if MOMENT_WEIGHT in embeddings.images.column_names:
        weights = embeddings.score(MOMENT_WEIGHT, "embed.moments")
        return Yardstick(pixels, logits, torch.from_numpy(weights).to(logits.device), WEIGHED)
    return Yardstick(pixels, logits)


def usual_share(web: WebImages) -> float:
    """Share of the held-out images, of which there are some, with the teacher's commonest answer.

    What never says anything else agrees with the teacher on so many.
    """
    measure = web.yardstick
    rows = web.held_out.to(measure.logits.device)
    answers = measure.logits[rows].argmax(dim=1)
    return max(measure.share(rows, answers == answer) for answer in answers.unique())


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
