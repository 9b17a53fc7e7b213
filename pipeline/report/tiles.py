"""Galleries as the template takes them: single images, pairs, mistakes."""

import re
from dataclasses import dataclass, field

from kd3_pipeline.manifest import host_of
from kd3_pipeline.report.thumbnails import Thumbnail


@dataclass(frozen=True)
class Tile:
    """One image with what is known of it; `thumbnail` is None when it cannot be decoded.

    `confidence` is the student's, a fraction; None for images that distillation was not given.
    `agrees` says whether it sees the class asked for, however that is spelt; `remark` is what a
    gallery says of the image.
    """

    thumbnail: Thumbnail | None
    title: str
    link: str
    host: str
    asked: str
    predicted: str
    times: int
    confidence: float | None = None
    outcome: str = ""
    agrees: bool = False
    remark: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes under which a reader would look for it."""
        return (self.asked,)


@dataclass(frozen=True)
class Pair:
    """A dropped image and the one for which it was; the distance is in bits of the hash.

    Of a leaked image the other one is a test image: a picture and a number, and no tile. Where
    `both_stay`, nothing was dropped. `measure` is said in place of distance and similarity, and
    `beside` in place of the number of a test image.
    """

    dropped: Tile
    original: Tile | None
    distance: int | None
    similarity: float | None
    test: Thumbnail | None = None
    test_image: int | None = None
    outcome: str = ""
    both_stay: bool = False
    measure: str = ""
    beside: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes under which a reader would look for it."""
        both = [self.dropped.asked, *([self.original.asked] if self.original else [])]
        return tuple(dict.fromkeys(both))


@dataclass(frozen=True)
class Mistake:
    """A test image that the student gets wrong; confidences are fractions."""

    thumbnail: Thumbnail | None
    actual: str
    student: str
    teacher: str
    student_confidence: float
    teacher_confidence: float
    outcome: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes under which a reader would look for it."""
        return (self.actual,)


@dataclass(frozen=True)
class Gallery:
    """Items of one kind, a sample of `total`, that can be filtered by class and outcome.

    `empty` is said in place of `note` where there is nothing to show.
    """

    key: str
    heading: str
    note: str
    total: int
    items: tuple[Tile | Pair | Mistake, ...] = ()
    kind: str = "tile"
    empty: str = "There are none."
    classes: tuple[str, ...] = field(init=False)
    outcomes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = {name for item in self.items for name in item.classes}
        object.__setattr__(self, "classes", tuple(sorted(names)))
        outcomes = dict.fromkeys(item.outcome for item in self.items)
        object.__setattr__(self, "outcomes", tuple(outcomes))

    def places(self, item: Tile | Pair | Mistake) -> str:
        """Numbers of an item's classes among those of the gallery, as an attribute."""
        return " ".join(str(self.classes.index(name)) for name in item.classes)


def web_link(*urls: str | None) -> tuple[str, str]:
    """The first http or https address among `urls`, and its host; ('', '') without one."""
    for url in urls:
        if not url or len(url) > 2000 or not re.fullmatch(r"https?://[^\s\x00-\x20\"<>\\]+", url):
            continue
        if host := host_of(url):
            return url, host
    return "", ""
