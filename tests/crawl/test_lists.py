import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.lists import listed_candidates
from kd3_pipeline.errors import UserError

NAMES = ["cat", "dog"]
URLS = [f"http://example.com/{index}.jpg" for index in range(5)]


def written(folder, name, content):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def refused(path, names=NAMES):
    with pytest.raises(UserError) as caught:
        listed_candidates(path, names)
    return str(caught.value)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_kind_of_list_gives_the_same_candidates(tmp_path, end):
    rows = [
        {"url": url, "class": NAMES[index % 2], "title": f"Bild, “{index}”", "creator": "Zoë"}
        for index, url in enumerate(URLS)
    ]
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    table = written(tmp_path, f"a.csv{end}", path.read_bytes())
    lines = "\n".join(json.dumps(row) for row in rows)
    json_lines = written(tmp_path, f"a.jsonl{end}", lines)
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    found = listed_candidates(table, NAMES)
    assert found == listed_candidates(json_lines, NAMES) == listed_candidates(parquet, NAMES)
    assert [one.url for one in found] == URLS
    assert [one.rank for one in found] == [0, 1, 2, 3, 4]
    assert [one.label for one in found] == [0, 1, 0, 1, 0]
    assert (found[1].class_name, found[1].engine, found[1].query) == ("dog", "urls", "")
    assert (found[3].title, found[3].creator, found[3].licence) == ("Bild, “3”", "Zoë", "")


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_text_has_an_address_a_line(tmp_path, end):
    text = f"\ufeff{URLS[0]}\r\n\n# a comment\n  {URLS[1]}#part  \n{URLS[0]}"
    found = listed_candidates(written(tmp_path, f"a.txt{end}", text), NAMES)
    assert [one.url for one in found] == [URLS[0], f"{URLS[1]}#part", URLS[0]]
    assert {(one.label, one.class_name) for one in found} == {(-1, "")}


@pytest.mark.parametrize("name", ["link", "URL", " Url "])
def test_an_only_column_is_the_address_whatever_its_name(tmp_path, name):
    path = written(tmp_path, "a.csv", f"{name}\n{URLS[0]}\n\n{URLS[1]}\n")
    assert [one.url for one in listed_candidates(path, NAMES)] == URLS[:2]


def test_names_of_columns_are_read_in_any_case_and_order(tmp_path):
    head = "License_URL,LABEL,Url,other,LICENSE,page_url,thumbnail"
    path = written(tmp_path, "a.csv", f"{head}\nhttp://l/,1,{URLS[0]},x,by,http://p/,http://t/\n")
    [one] = listed_candidates(path, NAMES)
    assert (one.label, one.class_name, one.url) == (1, "dog", URLS[0])
    assert (one.licence, one.licence_url) == ("by", "http://l/")
    assert (one.page_url, one.thumbnail) == ("http://p/", "http://t/")


@pytest.mark.parametrize(
    "value, label", [("", -1), ("-1", -1), ("0", 0), (" 1 ", 1), (None, -1), (1, 1)]
)
def test_a_label_is_an_index_or_none(tmp_path, value, label):
    path = written(tmp_path, "a.jsonl", json.dumps({"url": URLS[0], "label": value}))
    assert listed_candidates(path, NAMES)[0].label == label


@pytest.mark.parametrize("value", ["2", "-2", "1.0", "dog", "1e0", "٣", "9" * 5000, True, [], 2])
def test_another_label_is_refused(tmp_path, value):
    path = written(tmp_path, "a.jsonl", json.dumps({"url": URLS[0], "label": value}))
    assert "line 1, column 'label'" in refused(path)


def test_who_wrote_names_as_labels_is_told_the_column_for_them(tmp_path):
    with pytest.raises(UserError) as caught:
        listed_candidates(written(tmp_path, "a.csv", "url,label\nhttp://0.test/1,dog\n"), NAMES)
    assert caught.value.hint == "names of classes go in a column 'class'"


def test_class_and_label_have_to_agree(tmp_path):
    path = written(tmp_path, "a.csv", f"url,class,label\n{URLS[0]},dog,1\n{URLS[1]},dog,0\n")
    assert "line 3: class 'dog' has the label 1, not 0" in refused(path)


def test_an_unknown_class_is_named(tmp_path):
    path = written(tmp_path, "a.csv", f"url,class\n{URLS[0]},dog\n{URLS[1]},dgo\n")
    message = refused(path)
    assert f"{path}, line 3, column 'class': 'dgo'" in message and "cat, dog" in message


def test_a_table_without_addresses_shows_its_columns(tmp_path):
    path = written(tmp_path, "a.csv", "image,class\nx,cat\n")
    assert "no column 'url' among 'image', 'class'" in refused(path)
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "a.parquet")
    assert "no column 'url' among 'a', 'b'" in refused(tmp_path / "a.parquet")
    path = written(tmp_path, "a.jsonl", '{"image": "x"}')
    assert "line 1: no key 'url' among 'image'" in refused(path)
    path = written(tmp_path, "b.csv", f"class\n{URLS[0]}\n")
    assert "no column 'url' among 'class'" in refused(path)


def test_a_table_without_a_header_loses_no_address(tmp_path):
    message = refused(written(tmp_path, "a.csv", "\n".join(URLS)))
    assert "not a header" in message and ".txt" in message


WRONG = {
    "too many cells": ("a.csv", f"url,title\n{URLS[0]},x\n{URLS[0]},x,y\n", "line 3: 3 columns"),
    "too few cells": ("a.csv", f"url,title\n{URLS[0]}\n", "line 2: 1 columns"),
    "an open quote": ("a.csv", f'url,title\n{URLS[0]},"x', "line 2: unexpected end"),
    "text behind a quote": ("a.csv", f'url,title\n{URLS[0]},"x"y\n', "line 2: "),
    "a row of two lines": ("a.csv", f'url,title\n{URLS[0]},"x\ny"\n,z\n', "line 4, column 'url'"),
    "an empty address": ("a.csv", "url,title\n ,x\n", "line 2, column 'url'"),
    "a column twice": ("a.csv", "url,title,URL\nx,y,z\n", "two columns 'url'"),
    "a cell without end": ("a.csv", "url\n" + "x" * 200_000, "line 2: field larger"),
    "no JSON": ("a.jsonl", f'{{"url": "{URLS[0]}"}}\n{{"url": \n', "line 2: no JSON"),
    "deep JSON": ("a.jsonl", "[" * 100_000, "line 1: no JSON"),
    "no object": ("a.jsonl", f'"{URLS[0]}"', "line 1: expected a JSON object"),
    "a number for an address": ("a.jsonl", '{"url": 7}', "line 1, column 'url': 7 is no text"),
    "no address": ("a.jsonl", '{"url": null}', "line 1, column 'url': None is no text"),
    "a list for a title": ("a.jsonl", '{"url": "x", "title": []}', "line 1, column 'title'"),
    "no UTF-8": ("a.txt", f"{URLS[0]}\n".encode() + b"\xff\xfe", "line 2: 'utf-8' codec"),
    "no UTF-8 in a table": ("a.csv", b"url\nx\n\xe4\n", "line 3: 'utf-8' codec"),
    "an endless line": ("a.txt.gz", "x" * (2**20 + 1), "line 1: longer than 1 MiB"),
    "nothing": ("a.txt", "# nothing\n", "has no addresses"),
    "a header alone": ("a.csv", "url\n", "has no addresses"),
    "another kind": ("a.xml", "<url/>", "is no .txt, .csv, .tsv, .jsonl or .parquet file"),
    "an address in the header": ("a.csv", f"{URLS[0]},cat\n", "begin with the line 'url,…'"),
    "a table of tabs without a header": ("a.tsv", f"a cat\t{URLS[0]}\n", "the line '…\turl'"),
    "semicolons": ("a.csv", f"url;title\n{URLS[0]};x\n", "separated by semicolons, not commas"),
    "tabs in a .csv": ("a.csv", f"url\ttitle\n{URLS[0]}\tx\n", "separated by tabs, not commas"),
    "too few cells between tabs": ("a.tsv", f"url\ttitle\n{URLS[0]}\n", "line 2: 1 columns"),
    "no addresses": (
        "a.csv",
        "url\na.jpg\nb.jpg\n",
        "none of 2 values is a web address, as 'a.jpg'",
    ),
    "no addresses under another name": (
        "a.csv",
        "image_url,b\nc,d\n",
        "column 'image_url': none of",
    ),
    "an empty cell under another name": (
        "a.csv",
        "image_url,b\n,d\n",
        "line 2, column 'image_url'",
    ),
    "packed Parquet": ("a.parquet.gz", "PAR1", "is no .txt, .csv"),
    "no Parquet": ("a.parquet", "PAR1PAR1PAR1", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_place(tmp_path, case):
    name, content, expected = WRONG[case]
    message = refused(written(tmp_path, name, content))
    assert expected in message and name in message


@pytest.mark.parametrize("space", ["\t", " ", "   ", " \t "])
def test_a_text_may_have_an_id_before_each_address(tmp_path, space):
    ids = [f"n00004475_{index}" for index in range(5)]
    text = "".join(f"{id}{space}{url}\n" for id, url in zip(ids, URLS, strict=True))
    lines = []
    found = listed_candidates(written(tmp_path, "a.txt", f"# two\n{text}"), NAMES, lines)
    assert [(one.title, one.url) for one in found] == list(zip(ids, URLS, strict=True))
    assert len(lines) == 1 and "a.txt: title from 'id'" in lines[0]


def test_a_text_may_have_a_caption_behind_a_tab(tmp_path):
    [one] = listed_candidates(written(tmp_path, "a.txt", f"{URLS[0]}\ta red cat"), NAMES)
    assert (one.url, one.title) == (URLS[0], "a red cat")


@pytest.mark.parametrize("name", ["my  red cat.jpg", "a b/c.JPG?size=1", "cat (1).webp"])
def test_a_name_of_an_image_may_have_spaces(tmp_path, name):
    address = f"http://example.com/{name}"
    [one, _] = listed_candidates(written(tmp_path, "a.txt", f"{address}\n{URLS[0]}\n"), NAMES)
    assert (one.url, one.title) == (address, "")
    [one] = listed_candidates(written(tmp_path, "b.txt", f"id-1   {address}\n"), NAMES)
    assert (one.url, one.title) == (address, "id-1")


def test_behind_a_tab_an_address_may_have_spaces(tmp_path):
    [one] = listed_candidates(written(tmp_path, "a.txt", f"id\t{URLS[0]} x.jpg"), NAMES)
    assert (one.url, one.title) == (f"{URLS[0]} x.jpg", "id")


@pytest.mark.parametrize(
    "line, message",
    [
        ("cat.jpg", "line 3: 'cat.jpg' is no web address"),
        ("www.example.com/cat.jpg", "is no web address"),
        ("ftp://example.com/cat.jpg", "is no web address"),
        ("http:///cat.jpg", "is no web address"),
        ("a red cat http://example.com/1.jpg", "is no web address"),
        ("http://example.com/1.jpg http://example.com/2.jpg", "is no web address"),
        ("http://example.com/1.jpg\thttp://example.com/2.jpg", "is no web address"),
        ("http://example.com/1.jpg a cat", "is no web address"),
        ("http://example.com/1.jpg cat.jpg", "is no web address"),
        ("http://example.com/id=1 a cat", "is no web address"),
        ("http://example.com/a?x=1.jpg a cat", "is no web address"),
        ("a\tb\thttp://example.com/1.jpg", "is no web address"),
        (
            "id\thttp://example.com/1.jpg",
            "line 3 has an id and an address, but line 2 has an address",
        ),
        ("http://example.com/1.jpg\ta cat", "line 3 has an address and a text, but line 2 has"),
    ],
)
def test_a_line_that_is_none_of_a_text_is_told_with_what_to_do(tmp_path, line, message):
    told = refused(written(tmp_path, "a.txt", f"# list\n{URLS[0]}\n{line}\n"))
    assert message in told and "a.txt" in told
    assert "an id and an address with a tab" in told and ".tsv" in told
    assert "network" not in told


def test_a_table_may_have_tabs(tmp_path):
    head = "photo_id\tphoto_url\tphoto_image_url\tphotographer_username\tai_description"
    row = f'7\thttp://example.com/page\t{URLS[0]}\tzoë\ta 12" vinyl, "red'
    lines = []
    [one] = listed_candidates(written(tmp_path, "a.tsv", f"{head}\n{row}\n"), NAMES, lines)
    assert (one.url, one.page_url) == (URLS[0], "http://example.com/page")
    assert (one.creator, one.title) == ("zoë", 'a 12" vinyl, "red')
    assert "url from 'photo_image_url', page_url from 'photo_url'" in lines[0]
    assert "not read: 'photo_id'" in lines[0]


def test_columns_of_open_images_are_known(tmp_path):
    head = (
        "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
        "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
    )
    licence = "https://creativecommons.org/licenses/by/2.0/"
    row = f'0a,train,{URLS[0]},http://p/,{licence},http://a/,"Zoë, B",A car,9,x==,http://t/,'
    lines = []
    [one] = listed_candidates(written(tmp_path, "a.csv", f"{head}\n{row}\n"), NAMES, lines)
    assert (one.url, one.page_url, one.thumbnail) == (URLS[0], "http://p/", "http://t/")
    assert (one.title, one.creator) == ("A car", "Zoë, B")
    assert (one.licence, one.licence_url) == ("CC BY 2.0", licence)
    assert "not read: 'ImageID', 'Subset', 'AuthorProfileURL', 'OriginalSize'," in lines[0]


@pytest.mark.parametrize(
    "name", ["URL", "image_url", "img_url", "ImageURL", "photo_url", "Image Url"]
)
def test_known_names_of_the_address_are_read_beside_others(tmp_path, name):
    lines = []
    text = f"{name},TEXT,LICENSE,similarity\n{URLS[0]},a cat,?,0.3\n"
    [one] = listed_candidates(written(tmp_path, "a.csv", text), NAMES, lines)
    assert (one.url, one.title, one.licence) == (URLS[0], "a cat", "?")
    assert f"url from '{name}', title from 'TEXT'" in lines[0]
    pq.write_table(pa.table({name: URLS, "similarity": [0.1] * 5}), tmp_path / "a.parquet")
    assert [one.url for one in listed_candidates(tmp_path / "a.parquet", NAMES)] == URLS
    rows = written(tmp_path, "a.jsonl", json.dumps({name: URLS[0], "caption": "a cat"}))
    assert [(one.url, one.title) for one in listed_candidates(rows, NAMES)] == [(URLS[0], "a cat")]


def test_the_documented_name_comes_first_and_all_is_told(tmp_path):
    text = f"image_url,url,caption,title\nhttp://x/,{URLS[0]},b,a\n"
    lines = []
    [one] = listed_candidates(written(tmp_path, "a.csv", text), NAMES, lines)
    assert (one.url, one.title, lines) == (URLS[0], "a", [])


def test_what_is_no_text_under_another_name_is_left_out_and_counted(tmp_path):
    rows = [{"url": URLS[0], "caption": ["a", "b"]}, {"url": URLS[1], "caption": "c"}]
    path, lines = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), []
    assert [one.title for one in listed_candidates(path, NAMES, lines)] == ["", "c"]
    assert any("column 'caption': 1 values are no text" in line for line in lines)


@pytest.mark.parametrize(
    "address, name",
    [
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/deed.de", "CC BY-NC-SA 4.0"),
        ("http://www.creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "Public Domain Mark 1.0"),
        ("https://example.com/terms", "https://example.com/terms"),
    ],
)
def test_a_licence_that_is_an_address_has_its_name(tmp_path, address, name):
    [one] = listed_candidates(
        written(tmp_path, "a.csv", f"url,license\n{URLS[0]},{address}"), NAMES
    )
    assert (one.licence, one.licence_url) == (name, address)


def test_a_damaged_archive_is_refused(tmp_path):
    whole = gzip.compress("\n".join(URLS * 1000).encode())
    for name, data in {"cut": whole[:-20], "other": b"\n".join([b"x"]), "flip": whole[:40]}.items():
        (tmp_path / f"{name}.txt.gz").write_bytes(data)
        assert "cannot be read" in refused(tmp_path / f"{name}.txt.gz")


def test_rows_of_parquet_are_counted(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": ["x", None], "bytes": [b"x", b"y"]}), path)
    assert f"{path}, row 1, column 'url'" in refused(path)
    pq.write_table(pa.table({"url": [1, 2]}), path)
    assert f"{path}, row 0, column 'url'" in refused(path)


@pytest.mark.parametrize("column", ["url", "title"])
@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_a_small_file_of_gigabytes_of_text_takes_no_memory(tmp_path, column, kind):
    long = pa.array([b"http://example.com/" + b"x" * 1_000_000], kind)
    values = {"url": pa.array(["http://example.com/1.jpg"] * 5000)}
    values[column] = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), long)
    pq.write_table(pa.table(values), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    before = pa.default_memory_pool().max_memory()
    assert f"column '{column}': a text of more than 65,536 bytes" in refused(tmp_path / "a.parquet")
    assert pa.default_memory_pool().max_memory() - before < 50_000_000


def test_a_value_that_is_too_long_is_told_in_every_kind_of_list(tmp_path):
    path = written(tmp_path, "a.csv", f"url,title\n{URLS[0]},{'x' * 70_000}\n")
    assert "line 2, column 'title': a text of more than 65,536 bytes" in refused(path)


def test_texts_of_parquet_that_are_no_utf_8_are_told(tmp_path):
    buffers = [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    table = pa.table({"url": pa.Array.from_buffers(pa.string(), 1, buffers)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "cannot be read: 'utf-8' codec" in refused(tmp_path / "a.parquet")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "is no file" in refused(tmp_path / "none.txt")
    (tmp_path / "a.txt").mkdir()
    assert "is no file" in refused(tmp_path / "a.txt")
