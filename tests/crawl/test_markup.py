"""Images in the markup of a page: where they are named, and which of several is taken."""

import json
import time

import pytest

from kd3_pipeline.crawl.markup import images_of, links_of, parsed

PAGE = "http://0.test/sub/"


def found(markup: str) -> list[tuple[str, str]]:
    """Addresses and titles, without the host of the page."""
    tree = parsed(f"<!doctype html><title>A page</title>{markup}".encode(), "text/html")
    assert tree is not None
    return [(url.removeprefix("http://0.test"), title) for url, title, _ in images_of(tree, PAGE)]


def urls(markup: str) -> list[str]:
    return [url for url, _ in found(markup)]


@pytest.mark.parametrize(
    "name", ["data-original", "data-lazy-src", "data-src", "data-lazy", "data-echo"]
)
@pytest.mark.parametrize("src", ["", "src=/spinner.gif", "src=data:image/gif;base64,R0lGOD"])
def test_what_a_script_will_show_stands_for_the_blank_in_its_place(name: str, src: str) -> None:
    assert urls(f"<img {src} {name}=/big.jpg>") == ["/big.jpg"]


@pytest.mark.parametrize("value", ["true", "1", "", "data:image/gif;base64,R0", "{}"])
def test_a_late_attribute_that_is_no_address_leaves_the_image_that_is_there(value: str) -> None:
    assert urls(f"<img src=/a.jpg data-lazy='{value}' data-original='{value}'>") == ["/a.jpg"]


def test_an_unknown_attribute_counts_where_there_is_no_image_otherwise() -> None:
    assert urls("<img src='data:,' data-hero='/hero.webp?w=9' data-page=/x>") == ["/hero.webp?w=9"]
    assert urls("<img src=/a.jpg data-hero=/hero.webp>") == ["/a.jpg"]


@pytest.mark.parametrize(
    "text, largest",
    [
        ("a.jpg 400w, b.jpg 1200w, c.jpg 800w", "b.jpg"),
        ("a.jpg, b.jpg 1.5x, c.jpg 3x", "c.jpg"),
        ("a.jpg .5x, b.jpg 0.75x", "b.jpg"),
        ("a.jpg 600h 800w, b.jpg 900h 700w", "a.jpg"),
        ("c_fill,w_200/a.jpg 200w, c_fill,w_900/b.jpg 900w", "c_fill,w_900/b.jpg"),
        ("data:image/gif;base64,R0lGOD 2000w, a.jpg 300w", "a.jpg"),
        ("a.jpg 1w,b.jpg 2w,c.jpg 3w", "c.jpg"),
    ],
)
@pytest.mark.parametrize("name", ["srcset", "data-srcset", "data-lazy-srcset"])
def test_the_largest_of_a_set_is_taken(name: str, text: str, largest: str) -> None:
    assert urls(f"<img src=small.jpg {name}='{text}'>") == [f"/sub/{largest}"]


def test_a_picture_has_its_own_sources() -> None:
    source = "<source type=image/webp srcset='{0}.webp 300w, {0}-big.webp 900w'>"
    first, second = (
        f"<picture>{source.format(name)}<img src={name}.jpg></picture>" for name in "ab"
    )
    assert urls(first + second) == ["/sub/a-big.webp", "/sub/b-big.webp"]
    assert urls(first + "<img src=c.jpg>") == ["/sub/a-big.webp", "/sub/c.jpg"]


@pytest.mark.parametrize(
    "head",
    [
        *("<meta property=og:image content=/a.jpg>", "<meta name='OG:Image:URL' content=/a.jpg>"),
        *("<meta name=twitter:image content=/a.jpg>", "<meta itemprop=image content=/a.jpg>"),
        *("<meta property='twitter:image:src' content=/a.jpg>", "<link rel=image_src href=/a.jpg>"),
        "<link itemprop=image href=/a.jpg>",
    ],
)
def test_the_head_names_images(head: str) -> None:
    assert found(head) == [("/a.jpg", "A page")]


def test_other_words_of_the_head_name_none() -> None:
    head = "<meta name=twitter:card content=/a.jpg><meta property=og:video content=/a.mp4>"
    assert urls(head + "<link rel=icon href=/a.png><script src=/a.jpg>{}</script>") == []


def linked(data: object) -> list[tuple[str, str]]:
    text = data if isinstance(data, str) else json.dumps(data)
    return found(f'<script type="application/ld+json">{text}</script>')


IMAGE = {"@type": "ImageObject", "url": "/page-of-it", "contentUrl": "/a.jpg", "caption": "A cat"}


@pytest.mark.parametrize(
    "data, images",
    [
        ({"@type": "Article", "image": "/a.jpg"}, [("/a.jpg", "A page")]),
        ({"name": "Tom", "image": ["/a.jpg", "b.jpg"]}, [("/a.jpg", "Tom"), ("/sub/b.jpg", "Tom")]),
        ({"headline": "News", "image": {"url": "/a.jpg"}}, [("/a.jpg", "News")]),
        ({"headline": "News", "image": [IMAGE]}, [("/a.jpg", "A cat")]),
        ({"@graph": [{"@type": "WebPage"}, IMAGE]}, [("/a.jpg", "A cat")]),
        ([{"itemListElement": [{"item": {"photo": "/a.jpg"}}]}], [("/a.jpg", "A page")]),
        ({"@type": ["ImageObject"], "thumbnailUrl": "/t.jpg"}, [("/t.jpg", "A page")]),
        ({"image": "/a.jpg", "thumbnailUrl": "/t.jpg"}, [("/a.jpg", "A page")]),
        ({"publisher": {"logo": IMAGE}, "image": {"@id": "#primary"}}, []),
        ({"url": "/a.jpg", "@type": "VideoObject", "contentUrl": "/a.mp4", "image": 3}, []),
        ('<!--\n{"image": "/a.jpg",\n "text": "two\nlines"}\n-->', [("/a.jpg", "A page")]),
        ('//<![CDATA[\n{"image": "/a.jpg"}\n//]]>', [("/a.jpg", "A page")]),
        *(("{", []), ("[" * 100_000, []), ("", []), ("null", []), ('{"image": null}', [])),
        ({"image": ["javascript:x", "data:image/gif;base64,R0", "http://[", ""]}, []),
        ('{"image": "/\\ud800.jpg", "name": "\\ud800"}', []),
    ],
)
def test_linked_data_names_images(data: object, images: list[tuple[str, str]]) -> None:
    assert linked(data) == images


def test_a_script_of_another_type_is_not_read() -> None:
    assert urls('<script type="application/json">{"image": "/a.jpg"}</script>') == []


def test_links_are_joined_as_browsers_do() -> None:
    tree = parsed(rb"<a href='\x\y'>1</a><a href='../z?a b#c'>2</a><a href=mailto:a@b>3</a>", "")
    assert tree is not None
    assert list(links_of(tree, PAGE)) == ["http://0.test/x/y", "http://0.test/z?a%20b"]


def test_a_host_of_many_combining_letters_takes_no_time() -> None:
    start = time.process_time()
    many = "".join(f"<img src='//a{chr(0x301) * count}/x.jpg'>" for count in (60_000, 20_000, 1900))
    assert urls(many + "<img src=/a.jpg>") == ["/a.jpg"]
    assert time.process_time() - start < 1


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_page_that_begins_with_its_byte_order_is_read_whatever_its_header_says(
    order: str,
) -> None:
    body = "\ufeff<img src=/a.jpg alt=猫>".encode(order)
    tree = parsed(body, "text/html; charset=utf-8")
    assert tree is not None
    assert list(images_of(tree, "http://0.test/")) == [("http://0.test/a.jpg", "猫", False)]
