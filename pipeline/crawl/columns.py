"""Columns of lists of images, under the names that well-known data sets give them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError

# what is kept of a row → names it is known by, the first found counts; they are compared without
# letter case, spaces and underscores
KNOWN = {
    # a `photo_url` is Unsplash's page where there is a `photo_image_url`
    "url": (
        *("url", "image_url", "img_url", "photo_image_url", "photo_url", "picture_url"),
        *("original_url", "media_url", "content_url", "file_url", "image_link", "coco_url"),
        "flickr_url",
    ),
    "page_url": (
        *("page_url", "original_landing_url", "foreign_landing_url", "landing_url"),
        *("source_page", "permalink", "photo_url"),
    ),
    "title": ("title", "caption", "text", "alt_text", "alt", "description", "ai_description"),
    "thumbnail": ("thumbnail", "thumbnail_300k_url", "thumbnail_url", "thumb_url"),
    "licence": ("licence", "license", "license_name", "licence_name"),
    "licence_url": ("licence_url", "license_url"),
    "creator": (
        *("creator", "author", "photographer", "photographer_username", "artist", "owner_name"),
        *("rights_holder", "credit"),
    ),
    "class": ("class", "class_name"),
    "label": ("label",),
}
CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<code>[a-z+-]{2,20})|publicdomain/(?P<free>zero|mark))/(?P<version>\d\.\d)\b",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"https?://[^\s/]", re.IGNORECASE)
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Columns:
    """Which columns of one file are taken for what; collected for a note.

    Attributes:
        taken: what is kept → the column that has it.
        unread: other columns.
        no_text: values left out of columns under other names than documented, as lists of captions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: dict[str, str] = {}
        self.unread: dict[str, None] = {}
        self.no_text: Counter[str] = Counter()

    def of(self, names: Sequence[str], place: str = "", only: bool = True) -> dict[str, int]:
        """What is kept → the index of the column that has it; `url` is always there.

        Args:
            names: as the file has them.
            place: of these names, "" for the file's header.
            only: whether an only column is the address, whatever its name.

        Raises:
            UserError: none is the address, or one is there twice.
        """
        at = f"crawl.source: {place or self.path}"
        keys = [_key(name) for name in names]
        found = dict[str, int]()
        for kept, known in KNOWN.items():
            places = [keys.index(_key(one)) for one in known if _key(one) in keys]
            fresh = [place for place in places if place not in found.values()]
            if fresh:
                found[kept] = fresh[0]
        if only and len(names) == 1 and not found:
            self._check_header(names[0], at)
            found = {"url": 0}
        if "url" not in found:
            raise UserError(
                f"{at}: no {'key' if place else 'column'} 'url' among {_quoted(names)}",
                f"call the one with the addresses so; known too: {', '.join(KNOWN['url'][1:])}",
            )
        for kept, index in found.items():
            if keys.count(keys[index]) > 1:
                raise UserError(f"{at}: two columns '{kept}' in {_quoted(names)}")
        self.taken |= {kept: names[index] for kept, index in found.items()}
        self.unread |= {
            name: None for index, name in enumerate(names) if index not in found.values()
        }
        return found

    def name(self, kept: str) -> str:
        """The file's own name for what is kept."""
        return self.taken.get(kept, kept)

    def _check_header(self, name: str, at: str) -> None:
        for letter, word in OTHER_SEPARATORS.items():
            if letter in name:
                raise UserError(
                    f"{at}: its columns are separated by {word}, not commas",
                    "call a file with tabs .tsv, and write others with commas",
                )

    def lines(self) -> Iterator[str]:
        """What a person has to know: columns of other names than those kept, and what is not."""
        taken = [f"{kept} from '{name}'" for kept, name in self.taken.items() if name != kept]
        if taken:
            left = [name for name in self.unread if name not in self.taken.values()]
            unread = f"; not read: {_quoted(left)}" if left else ""
            yield printable(f"{self.path}: {', '.join(taken)}{unread}")
        for name, count in self.no_text.items():
            yield printable(f"{self.path}, column '{name}': {count:,} values are no text, left out")


def check_no_header(path: Path, names: Sequence[str]) -> None:
    """Says what to do with a table that begins with a row and not with names.

    Raises:
        UserError: it does.
    """
    if not any(ADDRESS.match(name.strip()) for name in names):
        return
    header = ["url" if ADDRESS.match(name.strip()) else "…" for name in names]
    line = ("\t" if ".tsv" in path.name.lower() else ",").join(header)
    raise UserError(
        f"crawl.source: {path}: the first line has an address, it is not a header",
        f"begin with the line '{line}', with the names of all columns"
        if len(names) > 1
        else "begin with the line 'url', or call the file .txt",
    )


def licence_of(texts: Mapping[str, str]) -> dict[str, str]:
    """`texts` with the licence's name and address apart, where the table has one for both."""
    texts = dict(texts)
    if ADDRESS.match(texts["licence"]):
        texts["licence_url"] = texts["licence_url"] or texts["licence"]
        if found := CREATIVE_COMMONS.match(texts["licence"]):
            free = {"zero": "CC0", "mark": "Public Domain Mark"}.get((found["free"] or "").lower())
            name = free or f"CC {found['code'].upper()}"
            texts["licence"] = f"{name} {found['version']}"
    return texts


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _quoted(names: Sequence[str]) -> str:
    rest = len(names) - 20
    shown = ", ".join(f"'{name[:60]}'" for name in names[:20])
    return (shown + (f" and {rest:,} more" if rest > 0 else "")) or "none"
