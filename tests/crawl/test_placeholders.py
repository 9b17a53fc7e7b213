"""Placeholders: which images a crawl puts aside, by where they came from and how they look."""

import io
import random
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from kd3_pipeline.crawl.placeholders import drawn_in_few_colours, place_of, placeholders
from kd3_pipeline.manifest import Candidate, Fetched


def given(urls, *, labels=(0,), pages=None, led_to=""):
    """What a crawl found at addresses of one image, each linked from a page of its own."""
    found = {}
    for rank, url in enumerate(urls):
        label = labels[rank % len(labels)]
        page = f"https://blog.test/post/{rank}" if pages is None else pages[rank % len(pages)]
        candidate = Candidate(label, f"class {label}", "test", "q", rank, url, page)
        found[candidate] = Fetched(url, "ok", id="x", final_url=led_to or url)
    return found


def reason(found, *, flat=False, urls=5):
    return placeholders(found, urls, lambda name: flat).get("x", "")


GONE = [f"https://pics.test/photo/{n}.jpg" for n in range(6)]


def test_a_flat_picture_at_many_paths_of_one_site_is_put_aside():
    assert reason(given(GONE), flat=True) == "at 6 paths of pics.test, in a few flat colours"
    assert reason(given(GONE[:4]), flat=True) == ""
    assert reason(given(GONE[:4]), flat=True, urls=4)
    assert reason(given(GONE), flat=True, urls=0) == ""


def test_a_picture_of_many_colours_is_popular_and_stays():
    assert reason(given(GONE)) == ""
    assert reason(given(GONE, labels=(0, 1))) == ""  # fox and red fox


def test_what_comes_for_three_classes_is_no_picture_of_any():
    found = given(GONE, labels=(0, 1, 2))
    assert reason(found) == "at 6 paths of pics.test, for 3 classes"


def test_what_all_addresses_lead_on_to_is_put_aside():
    found = given(GONE, led_to="https://static.test/unavailable.png")
    assert reason(found) == "6 addresses led to static.test/unavailable.png"
    # to another scheme, www. or query of itself is no other address
    for url in GONE:
        (one,) = given([url], led_to=url.replace("https://", "http://www.") + "?v=2").items()
        found[one[0]] = one[1]
    found = {
        candidate: Fetched(
            candidate.url, "ok", id="x", final_url=candidate.url.replace("pics", "www.pics") + "?2"
        )
        for candidate in given(GONE)
    }
    assert reason(found) == ""


SAME_PLACE = {
    "query": [f"https://pics.test/fox.jpg?utm_source={n}" for n in range(9)],
    "fragment": [f"https://pics.test/fox.jpg#{n}" for n in range(9)],
    "scheme, port and www.": [
        *("http://pics.test/fox.jpg", "https://pics.test/fox.jpg", "http://pics.test:80/fox.jpg"),
        *("https://www.pics.test/fox.jpg", "https://pics.test:8443/fox.jpg"),
        *("http://www.pics.test/fox.jpg", "https://m.pics.test/fox.jpg"),
    ],
    "case and slashes": [
        *("https://PICS.test/fox.jpg", "https://pics.test/Fox.JPG", "https://pics.test//fox.jpg"),
        *(
            "https://pics.test/fox.jpg/",
            "https://pics.test./fox.jpg",
            "https://pics.test/%66ox.jpg",
        ),
    ],
    "mirrors": [f"https://img{n}.pics.test/fox.jpg" for n in range(9)],
    "folders of sizes": [
        f"https://pics.test/a/{size}/fox.jpg"
        for size in ("200x300", "w_300", "s1600", "x400", "640w", "thumb", "original", "80px")
    ],
    "cloudinary": [f"https://pics.test/c_fill,w_{n},h_{n}/v1/fox.jpg" for n in range(100, 109)],
    "cloudflare": [
        f"https://pics.test/cdn-cgi/image/width={n},quality=75/fox.jpg" for n in range(100, 109)
    ],
    "names of sizes": [
        f"https://pics.test/a/{name}"
        for name in (
            *("fox.jpg", "fox-300x200.jpg", "300px-fox.jpg", "fox_b.jpg", "fox@2x.jpg"),
            *("fox-scaled.jpg", "fox-large.jpg", "fox._AC_SX300_.jpg", "fox_thumb.jpg"),
        )
    ],
}


@pytest.mark.parametrize("kind", SAME_PLACE)
def test_addresses_of_one_picture_count_once(kind):
    assert len({place_of(url) for url in SAME_PLACE[kind]}) == 1
    assert reason(given(SAME_PLACE[kind], labels=(0, 1, 2)), flat=True) == ""


def test_copies_at_many_sites_do_not_count():
    urls = [f"https://{name}.test/wp-content/fox.jpg" for name in "abcdefghi"]
    assert reason(given(urls, labels=(0, 1, 2)), flat=True) == ""


def test_one_page_that_shows_a_picture_many_times_counts_once():
    pages = ["https://blog.test/all", "http://www.blog.test/all/#x", "https://blog.test/all?page=2"]
    assert reason(given(GONE, pages=pages, labels=(0, 1, 2)), flat=True) == ""


def test_where_no_page_is_known_the_paths_count():
    assert reason(given(GONE, pages=[""]), flat=True)


def test_one_address_in_many_classes_is_no_placeholder():
    found = given(["https://pics.test/fox.jpg"] * 9, labels=range(9))
    assert reason(found, flat=True) == ""


def test_other_paths_stay_apart():
    urls = ["https://a.test/1/image.jpg", "https://a.test/2/image.jpg", "https://a.test/3.jpg"]
    urls += ["https://b.test/3.jpg", "https://500px.test/3.jpg", "http://10.0.0.1/3.jpg"]
    urls += ["http://10.0.0.2/3.jpg", "http://[::1]/3.jpg", "http://[broken/3.jpg", "3.jpg", ""]
    assert len({place_of(url) for url in urls}) == len(urls)


def test_hostile_addresses_take_no_time():
    for part in ("-1x", "._a_", "a_b,", "%", "/w_1", "@2x", "_s"):
        place_of("https://a.test/" + part * 100_000)


def encoded(image, kind="PNG"):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def notice(size=(400, 300), ground=(230, 230, 230), text="Image not available"):
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    draw.rectangle((150, 80, 250, 150), outline=(150, 150, 150), width=6)
    draw.text((140, 200), text, fill=(90, 90, 90))
    return image


def photograph(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_notices_are_drawn_in_few_colours_and_photographs_are_not(kind):
    assert drawn_in_few_colours(encoded(notice(), kind))
    assert drawn_in_few_colours(encoded(notice(ground=(20, 60, 120)), kind))
    for seed in range(5):
        assert not drawn_in_few_colours(encoded(photograph(seed), kind))
        page = Image.new("RGB", (700, 500), "white")  # a product on white ground
        page.paste(photograph(seed), (150, 100))
        assert not drawn_in_few_colours(encoded(page, kind))
    assert not drawn_in_few_colours(encoded(notice().filter(ImageFilter.BLUR), kind)[:200])
    assert not drawn_in_few_colours(random.Random(0).randbytes(500))


def test_images_that_came_seldom_cost_no_account_of_their_addresses():
    count = 20_000
    found = {
        Candidate(0, "cat", "test", "", rank, f"http://{rank}.test/{rank}.jpg"): Fetched(
            f"http://{rank}.test/{rank}.jpg", "ok", id=f"{rank:064x}"
        )
        for rank in range(count)
    }
    tracemalloc.start()
    try:
        assert placeholders(found, 5, lambda name: True) == {}
        assert tracemalloc.get_traced_memory()[1] < 150 * count
    finally:
        tracemalloc.stop()
