"""Caption tables are read in the layouts that are published, and what is broken is named."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.captions import tables
from kd3_pipeline.crawl.captions.cells import numbers, texts
from kd3_pipeline.crawl.captions.tables import Remarks, batches, row_total, table_paths
from kd3_pipeline.errors import UserError

ROWS = [("http://x.test/1", "a cat"), ("https://x.test/2", "a dog, black")]


def read(path: Path, remarks: Remarks | None = None) -> list[tuple[str | None, ...]]:
    """Addresses and captions of all tables that a path means."""
    remarks = remarks or Remarks()
    found = []
    for batch in batches(table_paths(str(path)), remarks):
        columns = [texts(batch[name]).to_pylist() for name in ("url", "text")]
        found += zip(*columns, strict=True)
    assert remarks.rows == len(found)
    return found


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cc12m.tsv", "http://x.test/1\ta cat\nhttps://x.test/2\ta dog, black\n"),
        ("cc3m.tsv", "a cat\thttp://x.test/1\r\na dog, black\thttps://x.test/2\r\n"),
        ("head.tsv", "caption\tURL\na cat\thttp://x.test/1\na dog, black\thttps://x.test/2"),
        (
            "a.csv",
            '\ufeffid,Url,TEXT\n1,http://x.test/1,a cat\n2,https://x.test/2,"a dog, black"\n',
        ),
        ("a.tsv", '"url"\t"text"\nhttp://x.test/1\ta cat\nhttps://x.test/2\ta dog, black\n'),
        ("a.csv", "image_url;alt\nhttp://x.test/1;a cat\nhttps://x.test/2;a dog, black\n"),
        ("a.csv", 'http://x.test/1,a cat\nhttps://x.test/2,"a dog, black"\n'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_read_with_a_header_or_without(
    tmp_path: Path, name: str, text: str, packed: bool
) -> None:
    data = text.encode()
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read(path) == ROWS


def test_what_a_file_without_a_header_is_taken_for_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a cat\thttp://x.test/1\n")
    remarks = Remarks()
    read(tmp_path / "t.tsv", remarks)
    (line,) = remarks.headerless
    assert line.endswith("t.tsv has no header: its columns are taken for captions and addresses")


URLS, CAPTIONS = [one[0] for one in ROWS], [one[1] for one in ROWS]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary()),
        *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string())),
    ],
    ids=str,
)
def test_parquet_is_read_whatever_type_its_text_has(tmp_path: Path, kind: pa.DataType) -> None:
    columns = [pa.array(values).cast(kind) for values in (URLS, CAPTIONS)]
    assert read(parquet(tmp_path / "t.parquet", URL=columns[0], TEXT=columns[1])) == ROWS


def test_nulls_and_bytes_that_are_no_text_are_survived(tmp_path: Path) -> None:
    column = pa.array([None, b"a \xff cat"], pa.binary())
    raw = pa.Array.from_buffers(pa.string(), 2, column.buffers())
    path = parquet(tmp_path / "t.parquet", url=raw, caption=raw, width=pa.array([1, 2]))
    assert read(path) == [(None, None), ("a \ufffd cat", "a \ufffd cat")]
    nulls = parquet(tmp_path / "n.parquet", url=pa.nulls(2), caption=pa.nulls(2))
    assert read(nulls) == [(None, None)] * 2


def test_published_names_of_columns_are_known_and_the_best_is_taken(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "t.parquet",
        uid=[1, 2],
        url=URLS,
        title=["no", "no"],
        caption=CAPTIONS,
        width=[1, 2],
        original_width=[3, 4],
        clip_b32_similarity_score=[0.1, 0.2],
        clip_l14_similarity_score=[0.3, 0.4],
        text=[[1], [2]],  # no text, whatever its name
    )
    (batch,) = batches([path], Remarks())
    assert texts(batch["text"]).to_pylist() == CAPTIONS
    assert batch["width"].to_pylist() == [3, 4]
    assert batch["similarity"].to_pylist() == [0.3, 0.4]
    assert set(batch) == {"url", "text", "width", "similarity"}


def test_a_folder_and_a_pattern_mean_their_tables_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.parquet", "deep/a.parquet"):
        parquet(tmp_path / name, url=[name], text=["t"])
    (tmp_path / "README.md").write_text("no table")
    assert [one[0] for one in read(tmp_path)] == ["b.parquet", "deep/a.parquet"]
    assert [one[0] for one in read(tmp_path / "*.parquet")] == ["b.parquet"]
    assert [one[0] for one in read(tmp_path / "**/a.*")] == ["deep/a.parquet"]
    assert row_total(table_paths(str(tmp_path))) == 2
    (tmp_path / "c.tsv").write_text("t\thttp://x.test/\n")
    assert row_total(table_paths(str(tmp_path))) is None


@pytest.mark.parametrize(
    "name", ["", "gone.parquet", "gone/*.parquet", "picture.jpg", "t.parquet.gz"]
)
def test_a_source_without_a_table_is_an_error_that_says_what_there_may_be(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "picture.jpg").write_bytes(b"")
    (tmp_path / "t.parquet.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"crawl\.source: .*csv"):
        table_paths(str(tmp_path / name))


def test_missing_columns_are_named_with_what_is_there(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", link=URLS, text=CAPTIONS)
    with pytest.raises(UserError, match=r"no column of addresses among 'link', 'text'.*image_url"):
        read(path)
    path = parquet(tmp_path / "t.parquet", url=URLS, text=[1, 2])
    with pytest.raises(UserError, match="no column of captions among 'url', 'text'"):
        read(path)
    (tmp_path / "t.csv").write_text("http://x.test/1,cat,3\n")
    with pytest.raises(UserError, match=r"t\.csv has no header, and is not two columns"):
        read(tmp_path / "t.csv")


def test_utf_16_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("url,text\nhttp://x.test/1,cat\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"t\.csv is UTF-16: write it as UTF-8"):
        read(tmp_path / "t.csv")


def test_a_caption_of_a_megabyte_is_a_row_as_any(tmp_path: Path) -> None:
    long = "x" * 2**20
    (tmp_path / "a.csv").write_text(f"url,text\nhttp://x.test/1,{long}\nhttp://x.test/2,cat\n")
    (tmp_path / "b.tsv").write_text(f"{long}\thttp://x.test/3\ncat\thttp://x.test/4\n")
    assert read(tmp_path) == [
        *(("http://x.test/1", long), ("http://x.test/2", "cat")),
        *(("http://x.test/3", long), ("http://x.test/4", "cat")),
    ]


def test_a_row_that_is_longer_than_any_caption_breaks_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 4096)
    parquet(tmp_path / "good.parquet", url=URLS, text=CAPTIONS)
    (tmp_path / "t.csv").write_text(f"url,text\nhttp://x.test/1,{'x' * 9999}\n")
    remarks = Remarks()
    assert read(tmp_path, remarks) == ROWS
    assert len(remarks.broken) == 1 and "t.csv cannot be read: " in remarks.broken[0]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{name} (is empty|cannot be read)"):
        read(tmp_path / name)


def test_a_broken_file_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    text = "".join(f"a caption of row {row}\thttp://x.test/{row}\n" for row in range(50_000))
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(text.encode())[:-50])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no more")
    parquet(tmp_path / "good.parquet", url=URLS, text=CAPTIONS)
    remarks = Remarks()
    assert read(tmp_path, remarks)[-2:] == ROWS
    assert [Path(one.split(" cannot be read: ")[0]).name for one in remarks.broken] == [
        *("cut.tsv.gz", "no.parquet")
    ]
    assert remarks.files == 1


def test_rows_of_another_shape_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('a "cat\thttp://x.test/1\nb\nc\td\te\n"dog"\thttp://x.test/2\n')
    remarks = Remarks()
    assert read(tmp_path / "t.tsv", remarks) == [
        ("http://x.test/1", 'a "cat'),
        ("http://x.test/2", '"dog"'),
    ]
    assert remarks.malformed == {str(tmp_path / "t.tsv"): 2}


def test_a_caption_of_several_lines_in_quotes_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('url,text\nhttp://x.test/1,"a ""big""\ncat"\n')
    assert read(tmp_path / "t.csv") == [("http://x.test/1", 'a "big"\ncat')]


def test_long_captions_come_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_BYTES", 100_000)
    captions = [f"{row} {'x' * 1000}" for row in range(300)]
    parquet(tmp_path / "t.parquet", url=captions, text=captions)
    sizes = [len(batch["url"]) for batch in batches([tmp_path / "t.parquet"], Remarks())]
    assert sum(sizes) == 300 and max(sizes) == 64


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 3]), [1.0, None, 3.0]),
        (pa.array([0.5, float("nan")], pa.float32()), [0.5, None]),
        (pa.array(["12", " 0.5 ", "1e3", "+2", "x", "", None]), [12, 0.5, 1000, 2, *[None] * 3]),
        (pa.array([True, None]), [1.0, None]),
    ],
)
def test_numbers_are_read_from_any_type(column: pa.Array, expected: list[float | None]) -> None:
    assert numbers(column).to_pylist() == expected
