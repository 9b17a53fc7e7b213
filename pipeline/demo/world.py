"""The plan of the demo web: what a search for each class finds, and the bytes of each result."""

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from kd3_pipeline.demo import titles
from kd3_pipeline.demo.domains import draw_off_topic, draw_web
from kd3_pipeline.demo.shapes import CLASS_NAMES

# Kinds of result. "slow" and "busy" are the server's manners; their image is the right one.
KIND_SHARES: dict[str, float] = {
    "right": 0.42,
    "wrong": 0.15,
    "off-topic": 0.20,
    "duplicate": 0.15,
    "not-found": 0.02,
    "truncated": 0.02,
    "html": 0.01,
    "pixel": 0.01,
    "slow": 0.005,
    "busy": 0.015,
}
STYLE_SHARES: dict[str, float] = {
    "line": 0.15,
    "cartoon": 0.20,
    "paper": 0.15,
    "inverted": 0.18,
    "watermark": 0.17,
    "pattern": 0.15,
}
CHANGE_SHARES: dict[str, float] = {  # of a duplicate against its source
    "exact": 0.25,
    "reencoded": 0.25,
    "resized": 0.20,
    "cropped": 0.15,
    "bordered": 0.15,
}
FORMAT_SHARES: dict[str, float] = {"JPEG": 0.8, "PNG": 0.1, "WEBP": 0.1}
LICENCE_SHARES: dict[str, float] = {
    "": 0.5,
    "CC BY 4.0": 0.2,
    "CC BY-SA 4.0": 0.15,
    "CC0": 0.15,
}
SIDE_RANGE = (48, 160)  # pixels
ASPECT_RANGE = (0.75, 4 / 3)  # width over height
QUALITY_RANGE = (60, 95)  # of JPEG and WebP
RESIZE_RANGE = (0.6, 1.5)
CROP_RANGE = (0.02, 0.04)  # of the width and of the height, in all
BORDER_RANGE = (2, 5)  # pixels a side

BROKEN_KINDS = ("not-found", "truncated", "html", "pixel")  # never give a picture
_SOURCE_KINDS = ("right", "wrong", "off-topic")  # what duplicates copy
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_PLAN_STREAM, _PICTURE_STREAM, _CHANGE_STREAM = 21, 22, 23
_NOT_FOUND = b"<!doctype html><title>404</title><h1>Not found</h1>"
_HTML = b"<!doctype html><title>Sign in</title><h1>Sign in to see this picture</h1>"
_PIXEL = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)


@dataclass(frozen=True)
class WebImage:
    """One search result."""

    label: int  # class asked for
    rank: int  # from 0, best first
    kind: str  # key of KIND_SHARES
    drawn: int | None  # class shown; None for an off-topic picture
    style: str  # key of STYLE_SHARES; empty for an off-topic picture
    seed: int  # of the picture; a duplicate has its source's
    width: int  # pixels, before the change of a duplicate
    height: int
    format: str  # key of FORMAT_SHARES
    quality: int
    host: int  # any number from 0; the server takes it modulo its number of hosts
    path: str  # URL path
    title: str
    licence: str  # empty when unknown
    copy_of: int | None = None  # rank of the result it duplicates
    change: str = ""  # key of CHANGE_SHARES; empty when it is no duplicate


@lru_cache(maxsize=64)
def plan(label: int, count: int, seed: int) -> tuple[WebImage, ...]:
    """The first `count` results of a class's query, in rank order.

    A longer plan of the same seed begins with the shorter one.
    """
    images: list[WebImage] = []
    sources: list[WebImage] = []
    for rank in range(count):
        rng = np.random.default_rng([seed, _PLAN_STREAM, label, rank])
        kind = _pick(KIND_SHARES, rng)
        if kind == "duplicate" and sources:
            images.append(_duplicate(sources[rng.integers(len(sources))], rank, rng))
        else:
            images.append(_original(label, rank, "right" if kind == "duplicate" else kind, rng))
        if images[-1].kind in _SOURCE_KINDS:
            sources.append(images[-1])
    return tuple(images)


@lru_cache(maxsize=4096)
def render(image: WebImage) -> tuple[bytes, str]:
    """The body and the content type that the image's URL answers with."""
    if image.kind == "not-found":
        return _NOT_FOUND, "text/html; charset=utf-8"
    if image.kind == "html":
        return _HTML, "image/jpeg"
    if image.kind == "pixel":
        return _PIXEL, "image/gif"
    body = _encoded(picture(image), image.format, image.quality)
    if image.kind == "truncated":
        scan = body.index(b"\xff\xda")  # start of scan: the header stays whole
        body = body[: (scan + len(body)) // 2]
    return body, f"image/{image.format.lower()}"


def picture(image: WebImage) -> Image.Image:
    """The RGB picture behind a result, before encoding and before any break."""
    rng = np.random.default_rng([image.seed, _PICTURE_STREAM])
    size = (image.width, image.height)
    if image.drawn is None:
        drawn = draw_off_topic(size, rng)
    else:
        drawn = draw_web(image.drawn, image.style, size, rng)
    return _changed(drawn, image) if image.change else drawn


def _original(label: int, rank: int, kind: str, rng: np.random.Generator) -> WebImage:
    drawn: int | None = label
    if kind == "wrong":
        drawn = int(label + rng.integers(1, len(CLASS_NAMES))) % len(CLASS_NAMES)
    elif kind == "off-topic":
        drawn = None
    width, height = _size(rng)
    encoding = "JPEG" if kind in ("truncated", "html") else _pick(FORMAT_SHARES, rng)
    extension = "gif" if kind == "pixel" else _EXTENSIONS[encoding]
    return WebImage(
        label=label,
        rank=rank,
        kind=kind,
        drawn=drawn,
        style="" if drawn is None else _pick(STYLE_SHARES, rng),
        seed=int(rng.integers(2**31)),
        width=width,
        height=height,
        format=encoding,
        quality=int(rng.integers(QUALITY_RANGE[0], QUALITY_RANGE[1] + 1)),
        licence=_pick(LICENCE_SHARES, rng),
        **_place(label, rank, extension, rng),
    )


def _duplicate(source: WebImage, rank: int, rng: np.random.Generator) -> WebImage:
    change = _pick(CHANGE_SHARES, rng)
    encoding, quality = source.format, source.quality
    if change != "exact":
        encoding = _pick(FORMAT_SHARES, rng)
        lowest, highest = QUALITY_RANGE
        quality = lowest + (quality - lowest + int(rng.integers(5, 30))) % (highest - lowest + 1)
    if change == "reencoded" and encoding == source.format == "PNG":
        encoding = "JPEG"  # the same PNG again would be an exact copy
    return replace(
        source,
        rank=rank,
        kind="duplicate",
        format=encoding,
        quality=quality,
        copy_of=source.rank,
        change=change,
        **_place(source.label, rank, _EXTENSIONS[encoding], rng),
    )


def _place(label: int, rank: int, extension: str, rng: np.random.Generator) -> dict[str, Any]:
    title = titles.title(CLASS_NAMES[label], rng)
    return {
        "host": int(rng.integers(2**16)),
        "path": f"/i/{label}/{rank}-{titles.slug(title)}.{extension}",
        "title": title,
    }


def _size(rng: np.random.Generator) -> tuple[int, int]:
    low, high = SIDE_RANGE
    aspect = np.exp(rng.uniform(*np.log(ASPECT_RANGE)))
    shorter = rng.integers(low, int(high / max(aspect, 1 / aspect)) + 1)
    longer = int(shorter * max(aspect, 1 / aspect))
    return (longer, int(shorter)) if aspect > 1 else (int(shorter), longer)


def _changed(drawn: Image.Image, image: WebImage) -> Image.Image:
    rng = np.random.default_rng([image.seed, _CHANGE_STREAM, image.rank])
    width, height = drawn.size
    if image.change == "resized":
        factor = rng.uniform(*RESIZE_RANGE)
        return drawn.resize((round(width * factor), round(height * factor)))
    if image.change == "cropped":
        cut = np.array(drawn.size) * rng.uniform(*CROP_RANGE)
        left, top = (cut * rng.uniform(0, 1, 2)).round().astype(int).tolist()
        right, bottom = np.maximum(cut.round().astype(int), 1).tolist()
        return drawn.crop((left, top, left + width - right, top + height - bottom))
    if image.change == "bordered":
        border = int(rng.integers(BORDER_RANGE[0], BORDER_RANGE[1] + 1))
        grey = int(rng.choice((0, 128, 255)))
        framed = Image.new("RGB", (width + 2 * border, height + 2 * border), (grey,) * 3)
        framed.paste(drawn, (border, border))
        return framed
    return drawn  # "exact" and "reencoded" differ in their encoding at most


def _encoded(drawn: Image.Image, encoding: str, quality: int) -> bytes:
    body = io.BytesIO()
    # WebP method 0 takes a tenth of the default's time.
    options = {"PNG": {}, "JPEG": {"quality": quality}, "WEBP": {"quality": quality, "method": 0}}
    drawn.save(body, encoding, **options[encoding])
    return body.getvalue()


def _pick(shares: dict[str, float], rng: np.random.Generator) -> str:
    edges = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]
