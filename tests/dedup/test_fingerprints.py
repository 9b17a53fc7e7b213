import hashlib
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageOps

from pipeline.dedup import fingerprints as module
from pipeline.dedup.fingerprints import ARRAYS, COLUMNS, fingerprint_images, fingerprint_shards
from pipeline.dedup.hashing import SHAPES, library_hash
from pipeline.errors import ExternalError, UserError
from pipeline.images import UPRIGHT, decode
from pipeline.store import StoredImage, shard_path, write_shards
from tests.dedup.real import real_images
from tests.dedup.test_hashing import bits_apart, picture

WHOLE, TRIMMED, CENTRE, MIRRORED = range(4)
UNTRIMMED = (0, 0, 1, 1)


def encoded(image, form="PNG", **how):
    out = io.BytesIO()
    image.save(out, form, **({"compress_level": 0} if form == "PNG" else {}), **how)
    return out.getvalue()


def jpeg(image, quality=90, **how):
    return encoded(image, "JPEG", quality=quality, **how)


def scene(index, width=400, height=300):
    """A smooth picture with edges, like none of its neighbours."""
    image = picture(index, width, height)
    drawn = ImageDraw.Draw(image)
    for x, y in np.random.default_rng([7, index]).uniform(0.1, 0.8, (5, 2)):
        spot = (x * width, y * height, x * width + width / 8, y * height + height / 8)
        drawn.ellipse(spot, fill=tuple(np.random.default_rng(index).integers(0, 256, 3).tolist()))
    return image


def bordered(image, share, colour, sides="lrtb"):
    across = round(image.width * share) if "l" in sides else 0
    down = round(image.height * share) if "t" in sides else 0
    return ImageOps.expand(image, (across, down, across, down), colour)


def stored(data, label=0):
    return StoredImage(hashlib.sha256(data).hexdigest(), data, label, 70, 50, "PNG")


def shards(folder, *contents):
    paths = []
    for number, data in enumerate(contents):
        write_shards(folder / str(number), [stored(one, row) for row, one in enumerate(data)], [])
        paths.append(shard_path(folder / str(number), 0))
    return paths


def same(a, b):
    assert a.images.equals(b.images)
    for name in ARRAYS:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


# hashes of whole pictures


@pytest.mark.parametrize("kind", SHAPES)
def test_pictures_that_are_no_jpeg_have_the_hashes_of_imagehash(kind):
    images = [scene(index, 90 + 31 * index, 400 - 17 * index) for index in range(12)]
    found, errors = fingerprint_images([encoded(image) for image in images], kind, False)
    assert not any(errors)
    assert found.hashes[:, WHOLE].tolist() == [library_hash(image, kind) for image in images]
    mirrored = [library_hash(ImageOps.mirror(image), kind) for image in images]
    assert found.hashes[:, MIRRORED].tolist() == mirrored


@pytest.mark.parametrize("size", [(800, 600), (723, 541), (301, 900), (257, 256), (64, 64)])
def test_jpegs_decoded_small_are_at_most_two_bits_from_imagehash(size):
    data = [jpeg(scene(index, *size)) for index in range(30)]
    found, _ = fingerprint_images(data, "phash", False)
    apart = bits_apart(found.hashes[:, WHOLE], [library_hash(decode(d), "phash") for d in data])
    assert apart.max() <= 2
    assert (apart == 0).mean() >= 0.85


def test_real_jpegs_decoded_small_are_at_most_two_bits_from_imagehash():
    real = [decode(data) for data in real_images("pacs-dog-horse/train.parquet", 60)]
    data = [jpeg(image.resize((800, 600), Image.Resampling.LANCZOS), 85) for image in real]
    found, _ = fingerprint_images(data, "phash", False)
    apart = bits_apart(found.hashes[:, WHOLE], [library_hash(decode(d), "phash") for d in data])
    assert apart.max() <= 2
    assert (apart == 0).mean() >= 0.9


@pytest.mark.parametrize("kind", SHAPES)
def test_exact_hashes_are_those_of_imagehash(kind):
    data = [jpeg(scene(index, 643, 481)) for index in range(10)]
    found, _ = fingerprint_images(data, kind, True)
    images = [decode(one) for one in data]
    assert found.hashes[:, WHOLE].tolist() == [library_hash(image, kind) for image in images]
    mirrored = [library_hash(ImageOps.mirror(image), kind) for image in images]
    assert found.hashes[:, MIRRORED].tolist() == mirrored


@pytest.mark.parametrize("kind", ["whash", "crop_resistant"])
def test_kinds_without_a_fast_path_are_exact_in_every_key(kind):
    image = scene(3, 300, 200)
    framed = bordered(image, 0.1, "navy")
    found, _ = fingerprint_images([encoded(framed)], kind, False)
    views = [framed, image, image.crop((15, 10, 285, 190)), ImageOps.mirror(framed)]
    assert found.hashes[0].tolist() == [library_hash(view, kind) for view in views]


def test_the_mirrored_key_is_the_whole_key_of_the_mirrored_picture():
    for kind in SHAPES:
        images = [scene(index) for index in range(10)]
        one, _ = fingerprint_images([encoded(image) for image in images], kind, False)
        other, _ = fingerprint_images([encoded(ImageOps.mirror(i)) for i in images], kind, False)
        assert np.array_equal(one.hashes[:, MIRRORED], other.hashes[:, WHOLE])
        assert np.array_equal(one.hashes[:, WHOLE], other.hashes[:, MIRRORED])


# what a stored picture may be


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("code", UPRIGHT)
def test_a_picture_turned_by_its_tag_is_its_upright_twin(code, form):
    image = scene(code, 531, 402)
    # what undoes a quarter turn is the other quarter turn; all others undo themselves
    undone = UPRIGHT[{6: 8, 8: 6}.get(code, code)]
    exif = Image.Exif()
    exif[0x0112] = code
    data = [encoded(image, form), encoded(image.transpose(undone), form, exif=exif)]
    found, errors = fingerprint_images(data, "phash", False)
    assert not any(errors)
    # a JPEG's squares of 8 pixels lie elsewhere in the turned picture
    allowed = 2 if form == "JPEG" else 0
    assert bits_apart(*found.hashes).max() <= allowed
    difference = np.abs(found.grey[0].astype(int) - found.grey[1])
    assert difference.max() <= (16 if form == "JPEG" else 0)
    exact, _ = fingerprint_images(data, "phash", True)
    assert bits_apart(*exact.hashes[:, [WHOLE, MIRRORED]]).max() <= allowed


def test_transparency_is_on_white_and_other_modes_are_as_in_colour():
    image = scene(5, 200, 150)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((30, 20, 170, 130), fill=255)
    cut_out = image.copy()
    cut_out.putalpha(mask)
    on_white = Image.composite(image, Image.new("RGB", image.size, "white"), mask)
    grey16 = np.asarray(image.convert("L")).astype(np.uint16) * 257
    pairs = [
        (encoded(cut_out), encoded(on_white)),
        (encoded(Image.fromarray(grey16)), encoded(image.convert("L"))),
        (encoded(image.quantize(256)), encoded(image.quantize(256).convert("RGB"))),
        (jpeg(image.convert("CMYK"), 95), jpeg(image, 95)),
        (jpeg(image.convert("L"), 95), encoded(decode(jpeg(image.convert("L"), 95)))),
        (jpeg(image, 95, keep_rgb=True), encoded(decode(jpeg(image, 95, keep_rgb=True)))),
        (encoded(image, "GIF", save_all=True, append_images=[scene(6)]), encoded(image, "GIF")),
        (encoded(image, "WEBP", lossless=True, method=0), encoded(image)),
        (encoded(image, "MPO", save_all=True, append_images=[scene(6)], quality=90), jpeg(image)),
    ]
    for one, other in pairs:
        found, errors = fingerprint_images([one, other], "phash", False)
        assert not any(errors)
        assert bits_apart(*found.hashes).max() <= 2
        assert np.abs(found.grey[0].astype(int) - found.grey[1]).mean() < 2
        assert np.abs(found.colour[0].astype(int) - found.colour[1]).mean() < 4


def test_grey_and_colour_are_the_whole_picture_small():
    image = scene(8, 803, 599)
    for data in (jpeg(image, 95), encoded(image)):
        found, _ = fingerprint_images([data], "phash", False)
        for name, mode, side in (("grey", "L", 64), ("colour", "RGB", 32)):
            wanted = image.convert(mode).resize((side, side), Image.Resampling.BICUBIC)
            difference = np.asarray(wanted).astype(int) - getattr(found, name)[0]
            assert np.abs(difference).mean() < 1.5


# borders and flat pictures


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("share", "colour", "sides"),
    [
        (0.05, "white", "lrtb"),
        (0.05, "black", "lrtb"),
        (0.1, "orchid", "lrtb"),
        (0.125, "black", "tb"),
        (0.2, "black", "lr"),
    ],
)
def test_a_bordered_copy_is_near_its_original_by_the_trimmed_key(share, colour, sides, form):
    images = [scene(index, 640, 480) for index in range(8)]
    plain, _ = fingerprint_images([encoded(image, form) for image in images], "phash", False)
    copies = [encoded(bordered(image, share, colour, sides), form) for image in images]
    framed, _ = fingerprint_images(copies, "phash", False)
    cut = share / (1 + 2 * share)
    x, y = cut * ("l" in sides), cut * ("t" in sides)
    assert np.array_equal(plain.trim, np.tile(UNTRIMMED, (8, 1)))
    assert np.allclose(framed.trim, [x, y, 1 - x, 1 - y], atol=0.011)
    assert bits_apart(plain.hashes[:, TRIMMED], framed.hashes[:, TRIMMED]).max() <= 6
    assert bits_apart(plain.hashes[:, CENTRE], framed.hashes[:, CENTRE]).max() <= 6
    assert bits_apart(plain.hashes[:, WHOLE], framed.hashes[:, WHOLE]).mean() > 6


def test_a_letter_box_in_a_pillar_box_is_trimmed_on_all_sides():
    image = scene(4, 640, 360)
    boxed = bordered(bordered(image, 0.1, "black", "tb"), 0.1, "teal", "lr")
    found, _ = fingerprint_images([jpeg(boxed)], "phash", False)
    cut = 0.1 / 1.2
    assert np.allclose(found.trim[0], [cut, cut, 1 - cut, 1 - cut], atol=0.011)


def test_a_border_is_trimmed_where_the_tag_has_turned_it():
    image = Image.new("RGB", (603, 401), "black")
    image.paste(scene(9, 500, 401), (103, 0))  # a bar at the left only
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: the bar is on top
    found, _ = fingerprint_images([jpeg(image, 95, exif=exif)], "phash", False)
    assert np.allclose(found.trim[0], [0, 103 / 603, 1, 1], atol=0.011)


def test_blank_and_tiny_pictures_are_flat_and_others_are_not():
    noise = np.random.default_rng(0).normal(120, 6, (200, 300, 3)).clip(0, 255).astype(np.uint8)
    dot = Image.new("RGB", (400, 400), "white")
    dot.paste(scene(1, 60, 60), (170, 170))
    flat = [
        Image.new("RGB", (300, 200), "white"),
        Image.new("RGB", (9, 9), "firebrick"),
        Image.fromarray(noise),
        dot,
        scene(2, 300, 7),
        scene(2, 1, 1),
    ]
    told = [scene(3, 300, 200), scene(4, 8, 8), bordered(scene(5), 0.2, "white")]
    for form in ("JPEG", "PNG"):
        found, errors = fingerprint_images([encoded(i, form) for i in flat + told], "phash", False)
        assert not any(errors)
        assert found.flat.tolist() == [True] * len(flat) + [False] * len(told)
        assert np.array_equal(found.trim[: len(flat)], np.tile(UNTRIMMED, (len(flat), 1)))


def test_real_images_are_hardly_ever_flat():
    found, _ = fingerprint_images(real_images("pacs-dog-horse/train.parquet", 200), "phash", False)
    assert found.flat.sum() <= 2


# shards


@pytest.mark.parametrize("kind", ["phash", "whash"])
def test_prints_are_in_the_order_of_shards_and_rows_and_bad_images_are_named(tmp_path, kind):
    good = [encoded(scene(index, 80, 60)) for index in range(4)]
    cut = jpeg(scene(1, 700, 500))
    bad = [good[0][: len(good[0]) // 2], b"<html>", b"", cut[: len(cut) // 2]]
    contents = [[good[0], bad[0], good[1], bad[1]], [], [bad[2], good[2], bad[3], good[3]]]
    seen = []
    found = fingerprint_shards(shards(tmp_path, *contents), kind, False, tmp_path / "c", 1, seen.append)
    assert found.images.schema.names == list(COLUMNS)
    data = [*contents[0], *contents[2]]
    table = found.images.to_pydict()
    assert table["id"] == [hashlib.sha256(one).hexdigest() for one in data]
    assert table["shard"] == [0] * 4 + [2] * 4
    assert table["row"] == table["label"] == [0, 1, 2, 3] * 2
    assert table["size"] == [len(one) for one in data]
    assert (table["width"][0], table["height"][0]) == (70, 50)
    broken = np.array([one in bad for one in data])
    assert [bool(error) for error in table["error"]] == broken.tolist()
    assert all("truncated" in table["error"][row] for row in (1, 6))
    for name in ARRAYS:
        assert not getattr(found, name)[broken].any()
    alone, _ = fingerprint_images(good, kind, False)
    for name in ARRAYS:
        assert np.array_equal(getattr(found, name)[~broken], getattr(alone, name)), name
    assert sum(seen) == 8


def test_no_image_and_one_image(tmp_path):
    for paths in ([], shards(tmp_path / "none", [])):
        found = fingerprint_shards(paths, "phash", False, tmp_path / "cache")
        assert found.images.num_rows == 0
        assert found.images.schema.names == list(COLUMNS)
        assert [getattr(found, name).shape for name in ARRAYS] == [
            (0, *shape) for _, shape in ARRAYS.values()
        ]
    paths = shards(tmp_path / "one", [encoded(scene(1))])
    assert fingerprint_shards(paths, "phash", False, tmp_path / "cache").grey.shape == (1, 64, 64)


def test_workers_give_what_one_process_gives(tmp_path):
    data = [encoded(scene(index, 40, 40)) for index in range(230)]
    paths = shards(tmp_path, data[:120], [], [*data[120:], b"no image"])
    alone = fingerprint_shards(paths, "phash", False, tmp_path / "one", 1)
    done = []
    together = fingerprint_shards(paths, "phash", False, tmp_path / "two", 2, done.append)
    same(alone, together)
    assert sum(done) == 231
    assert alone.images["error"].to_pylist()[:230] == [""] * 230


def test_a_finished_shard_is_not_decoded_again(tmp_path, monkeypatch):
    data = [encoded(scene(index, 40, 40)) for index in range(6)]
    first, second = shards(tmp_path, data[:3], data[3:])
    decoded = []
    monkeypatch.setattr(
        module, "_fingerprint_group", lambda path, *rest: decoded.append(path) or group(path, *rest)
    )
    cache = tmp_path / "cache"
    fingerprint_shards([first], "phash", False, cache)
    done = []
    both = fingerprint_shards([second, first], "phash", False, cache, 1, done.append)
    assert decoded == [first, second]
    assert sum(done) == 6
    assert both.images["shard"].to_pylist() == [0] * 3 + [1] * 3
    fingerprint_shards([first], "phash", True, cache)
    fingerprint_shards([first], "dhash", False, cache)
    assert decoded == [first, second, first, first]
    write_shards(first.parent, [stored(data[5])], [])
    assert fingerprint_shards([first], "phash", False, cache).images.num_rows == 1
    assert decoded == [first, second, first, first, first]
    assert len(list(cache.iterdir())) == 1  # what others left is gone


group = module._fingerprint_group

CHILD = """
import sys, time
from pathlib import Path
from pipeline.dedup.fingerprints import fingerprint_shards
cache, *paths = map(Path, sys.argv[1:])
fingerprint_shards(paths, "phash", False, cache, 2, lambda n: (print(n, flush=True), time.sleep(0.2)))
"""


def children(pid):
    found = []
    for path in os.listdir("/proc"):
        if path.isdigit():
            try:
                with open(f"/proc/{path}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(path))
    return found


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads Linux's list of processes")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_after_an_end_at_any_moment_no_process_is_left_and_work_goes_on(
    tmp_path, monkeypatch, sent
):
    data = [encoded(scene(index, 40, 40)) for index in range(9)]
    paths = shards(tmp_path, data[:3], data[3:6], data[6:])
    cache = tmp_path / "cache"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, cache, *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    child.stdout.readline()
    child.stdout.readline()  # two shards are fingerprinted, the second is not stored yet
    workers = children(child.pid)
    assert len(workers) >= 2
    if sent == signal.SIGKILL:
        child.kill()
    else:
        os.killpg(child.pid, sent)  # as Ctrl-C does
    _, said = child.communicate(timeout=30)
    assert child.returncode != 0
    assert said.count("Traceback") <= (sent == signal.SIGINT)
    until = time.monotonic() + 10
    while not all(map(gone, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert all(map(gone, workers))

    finished = {path for path in cache.iterdir() if not path.name.startswith(".")}
    assert len(finished) == 1
    decoded = []
    monkeypatch.setattr(
        module, "_fingerprint_group", lambda path, *rest: decoded.append(path) or group(path, *rest)
    )
    (cache / ".half.tmp1").mkdir()
    resumed = fingerprint_shards(paths, "phash", False, cache)
    assert decoded == paths[1:]
    assert not list(cache.glob(".*"))
    same(resumed, fingerprint_shards(paths, "phash", False, tmp_path / "fresh"))


def test_a_worker_that_dies_is_an_error_of_the_world(tmp_path, monkeypatch):
    paths = shards(tmp_path, [encoded(scene(1, 40, 40))])
    monkeypatch.setattr(module, "_fingerprint_group", _die)
    with pytest.raises(ExternalError, match="a process that decodes images died"):
        fingerprint_shards(paths, "phash", False, tmp_path / "cache", 2)
    assert not list((tmp_path / "cache").iterdir())


def _die(*task):
    os._exit(9)


def test_a_file_that_is_no_shard_is_told_before_anything_is_decoded(tmp_path):
    (good,) = shards(tmp_path, [encoded(scene(1, 40, 40))])
    table = pq.read_table(good)
    wrong = tmp_path / "images-00001.parquet"
    pq.write_table(table.set_column(2, "label", table["label"].cast("int32")), wrong)
    with pytest.raises(UserError, match=r"images-00001.parquet: column 'label': expected int64"):
        fingerprint_shards([good, wrong], "phash", False, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_large_arrays_are_files_and_hold_no_memory(tmp_path):
    paths = shards(tmp_path, [encoded(scene(1, 40, 40))])
    found = fingerprint_shards(paths, "phash", False, tmp_path / "cache")
    assert isinstance(found.grey, np.memmap)
    assert isinstance(found.colour, np.memmap)
    assert len(list((tmp_path / "cache").iterdir())) == 1
