"""What the teacher sees in images of a crawl that is under way."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kd3_pipeline.classes.wording import readable, same
from kd3_pipeline.console import Console, listed
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.embed.passing import TeacherPass
from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.images import decode
from kd3_pipeline.models.checkpoint import CONFIG, load_model
from kd3_pipeline.params import Embed
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.pixels import parts
from kd3_stages import paths

BATCH = 256
MOST_NAMED = 10  # classes in a line


class TeacherLabels:
    """The teacher of models/teacher, and which of its classes are those of a crawl.

    Attributes:
        known: of each class of the crawl, whether the teacher tells it apart.
    """

    def __init__(
        self, names: Sequence[str], journal: Journal, console: Console, section: Embed
    ) -> None:
        """`section` says how images are framed.

        Raises:
            UserError: there is no teacher, or it knows none of the classes.
        """
        self.journal, self.console = journal, console
        check_teacher()
        device = resolve_device("auto")
        network, config = load_model(paths.TEACHER, device)
        self.teacher = TeacherPass(network, config, device, resolve_precision("auto", device))
        self.frame = Frame(config.input_size, section.fit, section.size)
        self.labels = matched(names, config.class_names)
        self.known = [label in self.labels.values() for label in range(len(names))]
        if not any(self.known):
            raise UserError(
                "crawl.rounds: the teacher knows none of the classes of this crawl"
                f" (crawl.classes: {_named(names)}; {paths.TEACHER}: {_named(config.class_names)})",
                "name the classes as the teacher does (teacher.class_names), or set crawl.rounds:"
                " 0",
            )
        if unknown := [name for name, known in zip(names, self.known, strict=True) if not known]:
            console.note(
                f"crawl.rounds: not judged, since the teacher has no such class: {_named(unknown)}"
            )

    def __call__(self, ids: Sequence[str]) -> list[int | None]:
        """The class of the crawl that the teacher sees in each image, None where it is no such."""
        found: list[int | None] = []
        with (
            self.console.progress("crawl: asking the teacher", len(ids)) as advance,
            ThreadPoolExecutor() as threads,
        ):
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                decoded = list(threads.map(self._pixels, batch))
                seen = iter(self._predicted([one for one in decoded if one is not None]))
                found += [None if one is None else self.labels.get(next(seen)) for one in decoded]
                advance(len(batch))
        return found

    def _pixels(self, name: str) -> np.ndarray | None:
        try:
            return self.frame.of(decode(self.journal.read(name)))
        except ImageError:  # `embed` will say which; here it is an image of no class
            return None

    def _predicted(self, pixels: Sequence[np.ndarray]) -> Iterator[int]:
        if not pixels:
            return
        stacked, device = np.stack(pixels), self.teacher.device
        logits = torch.cat([self.teacher(part)[1] for part in parts(stacked, BATCH, device)])
        if not torch.isfinite(logits).all():
            raise UserError(
                f"crawl.rounds: the answer of {paths.TEACHER} to some images is not finite",
                "`dvc repro embed` says to which, without crawl.rounds",
            )
        yield from logits.argmax(dim=1).tolist()


def check_teacher(folder: Path = paths.TEACHER) -> None:
    """Raises UserError: there is no teacher that could say what the images show."""
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"crawl.rounds: {folder} has no teacher to say which classes are starved",
            "make it with `dvc repro teacher`, then crawl; or set crawl.rounds: 0",
        )


def matched(names: Sequence[str], of_teacher: Sequence[str]) -> dict[int, int]:
    """Output of the teacher → class of the crawl, by their readable names.

    Where the teacher's classes have numbers for names and are as many, they are taken in order, as
    a class set has them.
    """
    wanted, told = ([same(readable(name)) for name in of] for of in (names, of_teacher))
    numbered = told == [f"class {output}" for output in range(len(told))]
    if numbered and len(names) == len(told) and not set(wanted) & set(told):
        return {output: output for output in range(len(told))}
    labels = {name: label for label, name in enumerate(wanted) if wanted.count(name) == 1}
    return {output: labels[name] for output, name in enumerate(told) if name in labels}


def _named(names: Sequence[str]) -> str:
    return listed([name[:60] for name in names], MOST_NAMED)
