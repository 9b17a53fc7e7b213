import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, TiffImagePlugin

from kd3_pipeline.damage import first_scan
from kd3_pipeline.dedup.fingerprints import fingerprint_images
from kd3_pipeline.formats import FORMATS, readable
from kd3_pipeline.frames import to_square
from kd3_pipeline.images import decode, decode_reduced, decode_small, inspect
from kd3_pipeline.picturefile import Heavy, ImageError, is_large, open_image
from tests.crawl.hosts import png_claiming


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(width=40, height=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def outcome(data, min_side=1):
    with pytest.raises(ImageError) as caught:
        inspect(data, min_side)
    assert str(caught.value)
    return caught.value.outcome


@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_of_the_web_are_read(kind):
    data = encoded(noise(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    info = inspect(data, 30)
    assert (info.width, info.height, info.format) == (40, 30, kind)
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    if kind in ("PNG", "WEBP", "BMP"):
        assert np.array_equal(np.asarray(image), np.asarray(noise()))


REFUSED = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "html": b"<!doctype html><title>Sign in</title>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) show\n%%EOF",
    "pdf": b"%PDF-1.4\n",
    "empty": b"",
    "zeros": bytes(1000),
    "tiff": encoded(noise(), "TIFF"),
    "ppm": encoded(noise(), "PPM"),
    "ico": encoded(noise(), "ICO"),
    "tga": encoded(noise(), "TGA"),
    "jpeg2000": encoded(noise(), "JPEG2000"),
    "pcx": encoded(noise(), "PCX"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_of_file_are_refused(kind):
    assert outcome(REFUSED[kind]) == "not_an_image"


def in_every_mode(width, height):
    """Image data of every format, in the modes that it has, by name."""
    image, grey = noise(width, height), noise(width, height).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    modes = {
        "PNG": ["1", "L", "LA", "P", "RGB", "RGBA"],
        "JPEG": ["L", "RGB", "CMYK", "YCbCr"],
        "WEBP": ["RGB", "RGBA"],
        "GIF": ["L", "P", "RGBA"],
        "BMP": ["1", "L", "P", "RGB", "RGBA"],
        "AVIF": ["L", "RGB", "RGBA"],
    }
    found = {
        f"{kind} {mode}": encoded(image.convert(mode), kind)
        for kind in FORMATS
        for mode in modes[kind]
    }
    found["PNG 16 bits"] = encoded(deep, "PNG")
    found["PNG with a transparent colour"] = encoded(image, "PNG", transparency=(1, 2, 3))
    found["progressive JPEG"] = encoded(image, "JPEG", progressive=True)
    found["progressive CMYK"] = encoded(image.convert("CMYK"), "JPEG", progressive=True)
    found["lossless WEBP"] = encoded(image.convert("RGBA"), "WEBP", lossless=True)
    frames = {"save_all": True, "append_images": [noise(width, height, 1)]}
    found |= {f"animated {kind}": encoded(image, kind, **frames) for kind in ("GIF", "PNG", "WEBP")}
    return found


IN_EVERY_MODE = in_every_mode(120, 90)


@pytest.mark.parametrize("name", IN_EVERY_MODE)
def test_every_mode_passes_whole_and_not_truncated(name):
    data = IN_EVERY_MODE[name]
    info = inspect(data, 1)
    assert (info.width, info.height, info.has_gps) == (120, 90, False)
    assert decode(data).size == (120, 90)
    # of an animation the first frame has to be there: that is all that is used
    end = len(data) // 3 if name.startswith("animated") and "WEBP" not in name else len(data)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999):
        # what ends a PNG, a GIF or a padded BMP row holds no pixel
        cut = min(int(end * share), end - 30)
        assert outcome(data[:cut]) in ("truncated", "not_an_image")


def test_a_photograph_cut_at_its_end_is_refused():
    image = noise(60, 50).resize((600, 500), Image.Resampling.BICUBIC)
    for kind in FORMATS:
        data = encoded(image, kind)
        for share in (0.5, 0.75, 0.9, 0.99, 0.995, 0.999):
            assert outcome(data[: int(len(data) * share)]) in ("truncated", "not_an_image")


def test_a_truncated_jpeg_with_a_whole_header_is_called_truncated():
    data = encoded(noise(90, 90), "JPEG")
    assert open_image(data[: len(data) // 2]).size == (90, 90)
    assert outcome(data[: len(data) // 2]) == "truncated"


def test_the_smallest_side_counts():
    data = encoded(noise(40, 30), "PNG")
    assert inspect(data, 30).width == 40
    assert outcome(data, 31) == "too_small"
    assert outcome(encoded(noise(1, 1), "GIF"), 2) == "too_small"


def test_an_error_knows_the_size_once_the_header_is_read():
    whole = encoded(noise(40, 30), "JPEG")
    for data, least, size in [
        (whole, 31, (40, 30)),
        (whole[: len(whole) // 2], 1, (40, 30)),
        (png_claiming(7072, 7072), 1, (7072, 7072)),
        (b"nothing", 1, (0, 0)),
    ]:
        with pytest.raises(ImageError) as caught:
            inspect(data, least)
        assert (caught.value.width, caught.value.height) == size


def place(latitude=True):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    gps = {0: b"\x02\x03\0\0"}
    if latitude:
        gps |= {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}
    exif.get_ifd(0x8825).update(gps)
    return exif.tobytes()


def bmp_claiming(width, height):
    data = bytearray(encoded(noise(), "BMP"))
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


def gif_claiming(width, height):
    data = bytearray(encoded(noise(), "GIF"))
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


def webp_claiming(width, height):
    data = bytearray(encoded(noise(), "WEBP", exif=place()))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def jpeg_claiming(width, height):
    data = bytearray(encoded(noise(), "JPEG", progressive=True))
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        webp_claiming(16_383, 16_383),
        jpeg_claiming(65_500, 65_500),
        png_claiming(30_000, 30_000),
        png_claiming(7072, 7072),
        png_claiming(2**31 - 1, 2**31 - 1),
        bmp_claiming(30_000, 30_000),
        gif_claiming(65_535, 65_535),
    ],
    ids=["webp", "jpeg", "png", "png just over", "png huge", "bmp", "gif"],
)
def test_a_bomb_is_refused_by_its_header(data):
    start = time.perf_counter()
    assert outcome(data) == "too_many_pixels"
    assert time.perf_counter() - start < 0.2


LONG = [(70_000, 20), (20, 70_000), (65_536, 1)]


@pytest.mark.parametrize("size", LONG)
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_side_that_later_stages_cannot_read_is_refused_by_the_first(size, kind):
    data = encoded(Image.new("RGB", size, "red"), kind)
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]}: a side of more than 65,535") as e:
        inspect(data, 1)
    assert (e.value.outcome, e.value.width, e.value.height) == ("too_many_pixels", *size)
    for read in (
        decode,
        lambda data: decode_reduced(data, 128),
        lambda data: decode_small(data, 9),
    ):
        with pytest.raises(ImageError, match="a side of more than"):
            read(data)


LONGEST = dict.fromkeys(("PNG", "BMP", "GIF"), 65_535) | {"JPEG": 65_500, "WEBP": 16_383}
LONGEST["AVIF"] = 32_768  # that its decoder reads


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("short", [1, 20])
def test_what_is_stored_is_read_by_every_later_stage(kind, turned, short):
    size = (short, LONGEST[kind]) if turned else (LONGEST[kind], short)
    data = encoded(Image.new("RGB", size, "red"), kind)
    info = inspect(data, 1)
    assert (info.width, info.height) == size
    image = decode(data)
    assert image.size == size
    for fit in ("crop", "squash"):
        assert to_square(image, 32, fit).shape == (32, 32, 3)
    reduced, box, _ = decode_reduced(data, 128)
    assert reduced.resize((64, 64), box=box, reducing_gap=1).size == (64, 64)
    assert max(decode_small(data, 96).size) == 96
    _, errors = fingerprint_images([data], "phash", False)
    assert errors == [""]


def test_an_honest_bomb_of_a_few_bytes_is_refused_before_it_is_decoded():
    data = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(data) < 50_000
    start = time.perf_counter()
    assert outcome(data) == "too_many_pixels"
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation):
    upright = Image.new("RGB", (48, 32), "white")
    ImageDraw.Draw(upright).rectangle((0, 0, 15, 7), fill="black")
    undone = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    lying = upright
    for turn in undone:
        lying = lying.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        shown = decode(encoded(lying, kind, exif=exif.tobytes()))
        assert shown.size == (48, 32)
        difference = np.abs(np.asarray(shown, int) - np.asarray(upright, int))
        assert difference.mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 65_535, None])
def test_an_orientation_without_meaning_changes_nothing(orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    assert decode(encoded(noise(), "JPEG", exif=exif.tobytes())).size == (40, 30)


def test_broken_exif_does_not_cost_the_picture():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 1.5
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01"
    data = encoded(noise(), "JPEG", exif=exif.tobytes())
    start, length = data.index(b"Exif") + 6, len(exif.tobytes()) - 6
    rng = random.Random(0)
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            broken[start + rng.randrange(length)] = rng.randrange(256)
        assert decode(bytes(broken)).mode == "RGB"


def test_transparency_is_shown_on_white():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 10, 20))
    half = Image.new("RGBA", (20, 20), (0, 0, 0, 128))
    for kind in ("PNG", "WEBP"):
        shown = decode(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert shown.getpixel((5, 5)) == (0, 0, 255)
        assert shown.getpixel((15, 5)) == (255, 255, 255)
    assert decode(encoded(half, "PNG")).getpixel((3, 3)) == (127, 127, 127)


def test_grey_with_transparency_is_shown_on_white():
    image = Image.new("LA", (20, 20), (0, 0))
    image.paste((100, 255), (0, 0, 10, 20))
    shown = decode(encoded(image, "PNG"))
    assert (shown.getpixel((5, 5)), shown.getpixel((15, 5))) == ((100,) * 3, (255,) * 3)


def test_a_transparent_palette_colour_is_shown_on_white():
    image = Image.new("P", (20, 20), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 10, 20))
    for kind in ("PNG", "GIF"):
        shown = decode(encoded(image, kind, transparency=0))
        assert (shown.getpixel((5, 5)), shown.getpixel((15, 5))) == ((0, 255, 0), (255,) * 3)


def test_a_transparent_rgb_colour_is_shown_on_white():
    image = Image.new("RGB", (20, 20), (9, 8, 7))
    shown = decode(encoded(image, "PNG", transparency=(9, 8, 7)))
    assert shown.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode):
    image = Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    shown = decode(encoded(image, kind))
    assert shown.mode == "RGB"
    assert np.asarray(shown).min() >= 254


def test_cmyk_shows_its_colours():
    ink = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    red, green, blue = decode(encoded(ink, "JPEG", quality=95)).getpixel((9, 9))
    assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert open_image(data).n_frames > 1
    red, green, blue = decode(data).getpixel((16, 16))
    assert red > 240 and green < 15 and blue < 15
    assert inspect(data, 1).format == kind


def test_a_jpeg_with_more_pictures_behind_it_is_a_jpeg():
    data = encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    assert open_image(data).format == "MPO"
    assert inspect(data, 1).format == "JPEG"
    assert decode(data).size == (40, 30)


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    data = encoded(Image.new("L", (2048, 2048), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    hostile = data[:-2] + scan * 20_000 + data[-2:]
    assert len(hostile) < 400_000
    start = time.perf_counter()
    assert outcome(hostile) == "too_many_scans"
    with pytest.raises(ImageError):
        decode(hostile)
    assert time.perf_counter() - start < 0.5
    assert inspect(data[:-2] + scan * 50 + data[-2:], 1).width == 2048


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_what_takes_more_than_it_may_is_told_before_it_is_decoded(kind):
    data = encoded(Image.new("RGB", (300, 200), "red"), kind)
    for most, heavy in ((60_000, True), (60_000 * 20, False)):
        with pytest.raises(Heavy) if heavy else contextlib.nullcontext():
            assert inspect(data, 1, most=most).width == 300
        assert is_large(data, pixels=most // 4) == heavy


def test_the_first_scan_is_found_behind_stray_bytes_and_past_a_thumbnail():
    thumbnail = encoded(noise(), "JPEG")
    data = encoded(noise(), "JPEG", comment=thumbnail[:2000])
    scan = data.rindex(b"\xff\xda")
    assert first_scan(data) == scan
    assert first_scan(data[:2] + b"stray" + data[2:]) == scan + 5
    assert first_scan(data[:2] + b"\xff" + data[2:]) == scan + 1  # a fill byte
    assert first_scan(data[:scan]) == first_scan(b"\xff\xd8\xff") == first_scan(b"") == 0


def test_bytes_that_look_like_scans_are_no_scans():
    data = encoded(noise(), "JPEG", comment=b"\xff\xda" * 500)
    assert inspect(data + b"\xff\xda" * 500, 1).format == "JPEG"


def test_a_frame_larger_than_its_gif_is_refused_by_its_header():
    data = bytearray(encoded(noise(), "GIF"))
    frame = data.index(b",", 13 + 3 * 256)
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    assert outcome(bytes(data)) == "too_many_pixels"


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a exif:GPSLatitude="52,31N"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_place_is_found_in_exif_and_xmp(kind):
    assert inspect(encoded(noise(), kind, exif=place()), 1).has_gps
    assert not inspect(encoded(noise(), kind, exif=place(latitude=False)), 1).has_gps
    assert not inspect(encoded(noise(), kind), 1).has_gps
    if kind == "PNG":
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        data = encoded(noise(), "PNG")
        data = data[:33] + png_chunk(b"iTXt", text) + data[33:]
    else:
        data = encoded(noise(), kind, xmp=XMP)
    assert inspect(data, 1).has_gps


def png_chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def test_broken_exif_costs_neither_the_picture_nor_its_size():
    data = encoded(noise(), "JPEG", exif=place())
    start, length = data.index(b"Exif") + 6, len(place()) - 6
    rng = random.Random(1)
    for _ in range(1000):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            broken[start + rng.randrange(length)] = rng.randrange(256)
        assert inspect(bytes(broken), 1).width == 40


def with_everything(kind, image, orientation=6):
    """A picture with every kind of metadata, each of which says SECRET."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "SECRET"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0)})
    options = {"exif": exif.tobytes(), "icc_profile": b"a colour profile"}
    if kind == "PNG":
        data = encoded(image, kind, **options)
        extra = png_chunk(b"tEXt", b"Comment\0SECRET") + png_chunk(b"tIME", b"SECRET!")
        extra += png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"SECRET"))
        extra += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0SECRET" + XMP)
        extra += png_chunk(b"prVt", b"SECRET")
        return data[:33] + extra + data[33:] + b"SECRET"
    if kind == "WEBP":
        data = encoded(image, kind, xmp=b"SECRET" + XMP, **options)
        body = data[8:] + b"XTRA" + struct.pack("<I", 6) + b"SECRET"
        return b"RIFF" + struct.pack("<I", len(body)) + body + b"SECRET"
    data = encoded(image, kind, xmp=b"SECRET" + XMP, comment=b"SECRET", **options)
    iptc = b"Photoshop 3.0\0SECRET"
    segment = struct.pack(">HH", 0xFFED, len(iptc) + 2) + iptc
    return data[:2] + segment + data[2:] + b"SECRET" + encoded(noise(), "JPEG")


def mutated(data, rng):
    """`data` with bits flipped, parts cut out, doubled or exchanged, or numbers made extreme."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = (
            rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(60, len(data)))
        )
        match rng.randrange(7):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:  # a length or a dimension
                number = rng.choice((0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2000))
                data[place : place + 4] = struct.pack(rng.choice("<>") + "I", number)
            case 3:
                data[place : place + 2] = struct.pack(
                    rng.choice("<>") + "H", rng.choice((0, 2000, 65535))
                )
            case 4 if len(data) > 20:
                del data[place : place + rng.randrange(1, 20)]
            case 5:
                data[place:place] = data[place : place + rng.randrange(1, 40)]
            case 6 if rng.random() < 0.3 and len(data) > 20:
                del data[max(10, place) :]
    return bytes(data)


def fuzz(count, seed):
    """Meant for a process of its own: prints what came of `count` mutated images."""
    seeds = [with_everything(kind, noise(24, 18)) for kind in ("JPEG", "PNG", "WEBP")]
    seeds += in_every_mode(24, 18).values()
    rng, passed, slowest = random.Random(seed), 0, 0.0
    start = memory()
    for number in range(count):
        data = mutated(seeds[number % len(seeds)], rng)
        began = time.process_time()
        try:
            info = inspect(data, 1)
        except ImageError as error:
            assert error.outcome in OUTCOMES and str(error)
            continue
        finally:
            slowest = max(slowest, time.process_time() - began)
        passed += 1
        if info.width * info.height > 1_000_000:
            continue
        shown = decode(data)  # what passes can be read
        assert {*shown.size} == {info.width, info.height}
    with open("/proc/self/status") as file:  # getrusage counts what this was forked from
        peak = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    print(passed, f"{slowest:.3f}", f"{memory() - start:.0f}", f"{peak:.0f}")


def memory():
    """What this process holds now (MiB)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's accounts")
@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_images_do_no_harm(count):
    code = f"from tests.test_images import fuzz; fuzz({count}, 0)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    passed, slowest, growth, peak = map(float, run.stdout.split())
    assert 0.1 * count < passed < 0.9 * count
    # seconds, and MiB, of which a WebP of 50 megapixels takes most
    assert slowest < 3 and growth < 100 and peak < 1000


OUTCOMES = {
    *("not_an_image", "truncated", "damaged", "too_many_pixels", "too_many_scans", "too_small")
}


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (7, 7), (1, 300)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_squares_have_the_side_asked_for(size, fit):
    square = to_square(noise(*size), 32, fit)
    assert (square.shape, square.dtype) == ((32, 32, 3), np.uint8)


def test_crop_takes_the_centre_and_squash_takes_all():
    image = Image.new("RGB", (96, 32), "white")
    image.paste("black", (32, 0, 64, 32))
    assert to_square(image, 32, "crop")[:, 2:-2].max() == 0
    squashed = to_square(image, 33, "squash")
    assert squashed[:, :8].min() > 240 and squashed[:, 14:19].max() < 15


# formats of the user's own files


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "JPEG2000"])
def test_formats_of_the_users_own_are_read_and_refused_from_the_web(kind):
    if kind not in readable():
        pytest.skip("this Pillow has no codec for it")
    data = encoded(Image.new("RGB", (40, 20), (200, 30, 60)), kind)
    assert inspect(data, 16, readable()).format == kind
    red, green, blue = decode(data).getpixel((5, 5))
    assert abs(red - 200) < 6 and abs(green - 30) < 6 and abs(blue - 60) < 6
    with pytest.raises(ImageError) as caught:
        inspect(data, 16)
    assert caught.value.outcome == "not_an_image"


def test_a_tiff_of_several_pages_is_its_first():
    pages = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("tag", "value"), [(254, 1), (50706, b"\x01\x04\x00\x00")], ids=["a preview", "DNG"]
)
def test_a_cameras_raw_file_is_not_its_preview(tag, value):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[tag] = value
    data = encoded(Image.new("RGB", (20, 20)), "TIFF", tiffinfo=info)
    with pytest.raises(ImageError, match="camera's raw") as caught:
        decode(data)
    assert caught.value.outcome == "unsupported"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_tiff_of_measured_values_is_no_picture(mode):
    with pytest.raises(ImageError, match="32 bits") as caught:
        decode(encoded(Image.new(mode, (20, 20)), "TIFF"))
    assert caught.value.outcome == "unsupported"
