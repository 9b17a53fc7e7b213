"""Files of `share_saved`: pictures of all formats, damaged ones, and what is none."""

import gzip
import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageCms

SIDE = 96
PNG_HEAD = 33  # bytes up to the end of IHDR
PNG_END = 12  # bytes of IEND
PROFILE_DATE = 24  # where a profile has the date of its making (ICC.1, 7.2)
ORIENTATION = 0x0112
COLORANTS = (b"rXYZ", b"gXYZ")

Files = Iterator[tuple[str, bytes]]
Drawing = Callable[[], Image.Image]


class Pictures:
    """Draws another picture each time, from a seed."""

    def __init__(self, seed: int) -> None:
        self._numbers = ([seed, number] for number in itertools.count())

    def drawn(self) -> Image.Image:
        """Soft shapes with some noise, as in a photograph."""
        draws = np.random.default_rng(next(self._numbers))
        y, x = np.mgrid[:SIDE, :SIDE] / SIDE
        waves = draws.uniform(1, 9, (3, 2))
        pixels = np.stack([np.sin(x * across + y * down) for across, down in waves], -1)
        pixels = 128 + 90 * pixels + draws.normal(0, 8, pixels.shape)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def jpeg(self) -> bytes:
        """A plain JPEG."""
        return encoded(self.drawn(), "JPEG", quality=90)

    def png(self) -> bytes:
        """A plain PNG."""
        return encoded(self.drawn(), "PNG")

    def formats(self) -> Files:
        """A file of each kind that pages have, by name."""
        draw = self.drawn
        yield "progressive JPEG", encoded(draw(), "JPEG", progressive=True)
        yield "CMYK JPEG", encoded(draw().convert("CMYK"), "JPEG")
        yield "JPEG with a second picture (MPO)", _several(draw, "MPO")
        yield "JPEG turned by EXIF", encoded(draw(), "JPEG", exif=_turned(6))
        yield "PNG with a palette", encoded(draw().quantize(16), "PNG", bits=4)
        yield "PNG of one bit", encoded(draw().convert("1"), "PNG")
        yield "PNG, grey, of 16 bits", encoded(_sixteen(draw()), "PNG")
        yield "PNG with transparency", encoded(_half(draw()), "PNG")
        yield "animated PNG", _several(draw, "PNG")
        yield "GIF", encoded(draw().quantize(256), "GIF")
        yield "animated GIF", _several(draw, "GIF")
        yield "GIF whose frame covers a part", _partial_gif(draw().quantize(128))
        yield "WebP", encoded(draw(), "WEBP")
        yield "WebP, lossless, with transparency", encoded(_half(draw()), "WEBP", lossless=True)
        yield "animated WebP", _several(draw, "WEBP")
        yield "BMP", encoded(draw(), "BMP")
        yield "AVIF", encoded(draw(), "AVIF")
        yield "animated AVIF", _several(draw, "AVIF")

    def profiled(self) -> Files:
        """Pictures with colour profiles, whole, swapped, broken and long."""
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        srgb = srgb[:PROFILE_DATE] + bytes(12) + srgb[PROFILE_DATE + 12 :]
        red, green = COLORANTS
        swapped = srgb.replace(red, b"?").replace(green, red).replace(b"?", green)
        swapped_jpeg = encoded(self.drawn(), "JPEG", icc_profile=swapped)
        yield "JPEG with an sRGB profile", encoded(self.drawn(), "JPEG", icc_profile=srgb)
        yield "JPEG whose profile swaps red and green", swapped_jpeg
        yield "PNG with a profile", encoded(self.drawn(), "PNG", icc_profile=swapped)
        yield "WebP with a profile", encoded(self.drawn(), "WEBP", icc_profile=swapped)
        broken = encoded(self.drawn(), "JPEG", icc_profile=b"no profile " * 40)
        yield "JPEG whose profile is none", broken
        long = np.random.default_rng(0).bytes(2_000_000)
        yield "JPEG with a profile of 2 MB", encoded(self.drawn(), "JPEG", icc_profile=long)
        yield "PNG with gAMA 1.0", _with_chunks(self.png(), (b"gAMA", struct.pack(">I", 100_000)))

    def damaged(self) -> Files:
        """Files with a fault that costs no pixel."""
        yield "JPEG without its last two bytes", self.jpeg()[:-2]
        yield (
            "JPEG, progressive, without its end",
            encoded(self.drawn(), "JPEG", progressive=1)[:-2],
        )
        yield "JPEG with other bytes behind", self.jpeg() + bytes(900) + b"<!-- -->"
        yield "JPEG with fill bytes", b"\xff\xd8\xff\xff\xff" + self.jpeg()[2:]
        yield "JPEG with broken EXIF", _segment(self.jpeg(), b"Exif\0\0" + b"\xff" * 40)
        yield "PNG, bad checksum in a text", _with_chunks(self.png(), (b"tEXt", b"k\0v"), bad=True)
        yield "PNG, text that does not unpack", _with_chunks(self.png(), (b"zTXt", b"k\0\0no"))
        long = b"k\0\0" + zlib.compress(bytes(2_000_000))
        yield "PNG, text of 2 MB unpacked", _with_chunks(self.png(), (b"zTXt", long))
        yield "PNG, profile that does not unpack", _with_chunks(self.png(), (b"iCCP", b"p\0\0no"))
        yield "PNG without its end", self.png()[:-PNG_END]
        yield "PNG with other bytes behind", self.png() + b"junk"
        yield "GIF without its end", encoded(self.drawn().quantize(64), "GIF")[:-1]
        yield "WebP with other bytes behind", encoded(self.drawn(), "WEBP") + b"junk" * 20

    def nothing(self) -> Files:
        """What comes in place of pictures, and shows nothing."""
        page = b"<!doctype html><html><title>Gone</title><p>This picture is gone.</p></html>"
        yield "a page", page
        yield "a page that says it is a JPEG", page.replace(b"Gone", b"gone")
        yield "JSON", b'{"error": "not found"}'
        yield "no bytes", b""
        yield "a text", b"403: hotlinking is not allowed\n"
        yield "head of a JPEG, then noise", self.jpeg()[:20] + np.random.default_rng(1).bytes(4000)
        yield "head of a PNG alone", self.png()[:PNG_HEAD]
        yield "head of a GIF alone", encoded(self.drawn().quantize(8), "GIF")[:13]
        yield "a picture in gzip, as a file", gzip.compress(self.jpeg(), mtime=0)
        yield "video", struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"mp41") + bytes(4000)
        yield "HEIC", struct.pack(">I4s4sI4s", 20, b"ftyp", b"heic", 0, b"mif1") + bytes(4000)
        yield "JPEG 2000", encoded(self.drawn(), "JPEG2000")
        yield "TIFF", encoded(self.drawn(), "TIFF")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def svg(number: int) -> bytes:
    """A drawing in SVG."""
    shape = f'<circle cx="50" cy="50" r="{10 + number}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100">{shape}</svg>'.encode()
    )


def _several(draw: Drawing, kind: str) -> bytes:
    return encoded(draw(), kind, save_all=True, append_images=[draw(), draw()])


def _half(image: Image.Image) -> Image.Image:
    image.putalpha(Image.new("L", image.size, 255).point(lambda _: 128))
    return image


def _sixteen(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def _turned(code: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = code
    return exif


def _segment(data: bytes, text: bytes) -> bytes:
    """A JPEG with an application segment more."""
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(text) + 2) + text + data[2:]


def _with_chunks(data: bytes, *chunks: tuple[bytes, bytes], bad: bool = False) -> bytes:
    """A PNG with chunks more, right behind its head; `bad`: their checksums are wrong."""
    new = b"".join(
        struct.pack(">I", len(body))
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body) ^ bad)
        for name, body in chunks
    )
    return data[:PNG_HEAD] + new + data[PNG_HEAD:]


def _partial_gif(image: Image.Image) -> bytes:
    """A GIF with a canvas twice as wide and high as its frame."""
    data = encoded(image, "GIF")
    return data[:6] + struct.pack("<HH", 2 * SIDE, 2 * SIDE) + data[10:]
