"""Images that a page names in its linked data (JSON-LD in the terms of schema.org)."""

import json
from collections.abc import Iterator
from typing import Any

# what an object names its own pictures by; a logo is its publisher's, and no picture of it
IMAGES = ("image", "photo", "primaryImageOfPage", "thumbnailUrl")
FILES = ("contentUrl", "url", "thumbnailUrl")  # of an ImageObject, the best first
TITLES = ("caption", "headline", "name")
NOT_SHOWN = {"logo"}


def data_images(text: str) -> Iterator[tuple[str, str]]:
    """Addresses of images in the text of a script, each with a title or ""; none if it is no JSON.

    Line ends within strings, and a comment or CDATA around it all, are common there.
    """
    text = text.strip().removeprefix("<!--").removeprefix("//").strip()
    text = text.removeprefix("<![CDATA[").removesuffix("-->").strip()
    text = text.removesuffix("]]>").strip().removesuffix("//").strip()
    try:
        data = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return
    waiting: list[tuple[Any, str, bool]] = [(data, "", False)]  # value, title, whether an image
    while waiting:
        value, title, is_image = waiting.pop()
        if isinstance(value, str) and is_image:
            yield value, title
        elif isinstance(value, list):
            waiting += [(one, title, is_image) for one in reversed(value)]
        elif isinstance(value, dict):
            title = _title(value) or title
            is_image = is_image or _is_image(value)
            if is_image:
                yield from _file(value, title)
            parts = [
                (one, title, key in IMAGES)
                for key, one in value.items()
                if key not in NOT_SHOWN
                and isinstance(one, str | list | dict)
                # what an image object has of these is itself, smaller
                and not (key == "thumbnailUrl" and (is_image or "image" in value))
            ]
            waiting += parts[::-1]


def _is_image(value: dict[str, Any]) -> bool:
    kinds = value.get("@type")
    return "ImageObject" in (kinds if isinstance(kinds, list) else [kinds])


def _file(value: dict[str, Any], title: str) -> Iterator[tuple[str, str]]:
    for key in FILES:
        if isinstance(found := value.get(key), str):
            yield found, title
            return


def _title(value: dict[str, Any]) -> str:
    return next((found for key in TITLES if isinstance(found := value.get(key), str)), "")
