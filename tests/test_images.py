import io
import random
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.images import FORMATS, ImageError, decode, inspect, open_image, to_square
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


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_image_is_refused(kind):
    data = encoded(noise(90, 90), kind)
    assert outcome(data[: len(data) * 2 // 3]) in ("truncated", "not_an_image")


def test_a_truncated_jpeg_with_a_whole_header_is_called_truncated():
    data = encoded(noise(90, 90), "JPEG")
    assert open_image(data[: len(data) // 2]).size == (90, 90)
    assert outcome(data[: len(data) // 2]) == "truncated"


def test_the_smallest_side_counts():
    data = encoded(noise(40, 30), "PNG")
    assert inspect(data, 30).width == 40
    assert outcome(data, 31) == "too_small"
    assert outcome(encoded(noise(1, 1), "GIF"), 2) == "too_small"


def bmp_claiming(width, height):
    data = bytearray(encoded(noise(), "BMP"))
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


def gif_claiming(width, height):
    data = bytearray(encoded(noise(), "GIF"))
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_claiming(30_000, 30_000),
        png_claiming(7072, 7072),
        png_claiming(2**31 - 1, 2**31 - 1),
        bmp_claiming(30_000, 30_000),
        gif_claiming(65_535, 65_535),
    ],
    ids=["png", "png just over", "png huge", "bmp", "gif"],
)
def test_a_bomb_is_refused_by_its_header(data):
    start = time.perf_counter()
    assert outcome(data) == "too_many_pixels"
    assert time.perf_counter() - start < 0.2


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


@pytest.mark.parametrize("most", [255, 4000, 65_535])
def test_sixteen_bits_of_grey_keep_their_brightness(most):
    values = np.linspace(0, most, 30 * 30).reshape(30, 30).astype(np.uint16)
    shown = np.asarray(decode(encoded(Image.fromarray(values), "PNG")), int)
    assert np.abs(shown - (values / 257)[..., None]).max() <= 1


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


@pytest.mark.parametrize("kind", FORMATS)
def test_garbage_gives_an_image_error_or_an_image(kind):
    data = encoded(noise(), kind)
    rng = random.Random(kind)
    good = 0
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            broken = broken[: rng.randrange(len(broken))]
        try:
            assert decode(bytes(broken)).mode == "RGB"
            good += 1
        except ImageError as error:
            assert error.outcome in ("not_an_image", "truncated", "too_many_pixels")
    assert good < 2000


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
