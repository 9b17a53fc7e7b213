import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.imagesource.table import BATCH_BYTES, Table, batches
from tests.imagesource.making import PICTURES, Read, table_of

NAMES = ["cat", "dog"]


def structs(pictures):
    return [{"bytes": data, "path": None} for data in pictures]


@pytest.mark.parametrize("column", ["image", "img", "jpg", "webp", "photograph"])
def test_the_column_of_pictures_is_found_by_name_or_content(tmp_path, column):
    columns = {"noise": [b"x", b"y"], column: PICTURES[:2]}
    read = Read(table_of(tmp_path / "x.parquet", columns))
    assert [entry.data for _, entry in read.rows] == PICTURES[:2]


@pytest.mark.parametrize("column", ["label", "digit"])
def test_numbers_have_the_names_of_the_schema(tmp_path, column):
    columns = {"image": structs(PICTURES[:3]), column: [1, 0, -1], "caption": ["a", None, "c"]}
    read = Read(table_of(tmp_path / "x.parquet", columns, {column: NAMES}), ("dog", "cat"))
    assert list(read.classes.values()) == [(0, "dog"), (1, "cat"), (-1, "")]
    assert [one.title for one, _ in read.rows] == ["a", "", "c"]
    assert not read.told("number for a class"), "-1 is no class, and nothing to tell"


def test_words_are_classes_as_they_are(tmp_path):
    columns = {"image": PICTURES[:2], "label": ["cat", "stoat"]}
    read = Read(table_of(tmp_path / "x.parquet", columns), ("cat",))
    assert list(read.classes.values()) == [(0, "cat"), (-1, "")]
    assert read.told("(stoat 1)")


def test_a_name_that_two_classes_have_stands_for_neither(tmp_path):
    columns = {"image": PICTURES[:3], "label": [0, 1, 2]}
    path = table_of(tmp_path / "x.parquet", columns, {"label": ["crane", "fox", "crane"]})
    read = Read(path, ("crane", "fox"))
    assert list(read.classes.values()) == [(-1, ""), (1, "fox"), (-1, "")]
    assert read.told("2 pictures have a number for a class that no name, or two of one spelling")


def test_a_path_in_place_of_the_bytes_is_not_opened(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(PICTURES[0])
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": None, "path": str(secret)}, {"bytes": PICTURES[1]}], kind)
    read = Read(table_of(tmp_path / "x.parquet", {"image": column}))
    assert read.outcomes == {"x.parquet#0": "missing", "x.parquet#1": ""}
    assert read.rows[0][1].detail == "a path in place of the bytes"


def test_rows_over_the_limit_have_no_bytes(tmp_path):
    read = Read(
        table_of(tmp_path / "x.parquet", {"image": [bytes(5000), PICTURES[0]]}), max_bytes=4999
    )
    assert read.outcomes == {"x.parquet#0": "too_large", "x.parquet#1": ""}
    assert read.rows[0][1].size == 5000 and read.rows[0][1].data == b""


def test_a_table_of_img2dataset_says_why_a_row_is_empty(tmp_path):
    columns = {
        "key": ["0", "1"],
        "jpg": [PICTURES[0], None],
        "url": ["https://x/0", "https://x/1"],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "timed out"],
    }
    read = Read(table_of(tmp_path / "in/00000.parquet", columns).parent)
    assert read.outcomes == {"00000.parquet#0": "", "00000.parquet#1": "missing"}
    assert read.rows[1][1].detail == "failed_to_download: timed out"
    assert [entry.facts.url for _, entry in read.rows] == columns["url"]


def test_a_table_that_breaks_off_gives_each_row_a_reason(tmp_path):
    path = table_of(tmp_path / "x.parquet", {"image": [bytes([n]) * 3000 for n in range(250)]})
    data = bytearray(path.read_bytes())
    data[1000:9000] = bytes(8000)
    path.write_bytes(data)
    read = Read(path)
    assert len(read.rows) == 250
    assert "unreadable" in read.outcomes.values()


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("struct", [True, False])
def test_rows_are_read_by_what_they_may_weigh(tmp_path, dictionary, struct):
    large = [bytes([number]) * (BATCH_BYTES // 4) for number in range(3)]
    values = [large[0]] * 12 if dictionary else large * 4
    path = tmp_path / "x.parquet"
    column = structs(values) if struct else values
    pq.write_table(pa.table({"image": column}), path, use_dictionary=dictionary)
    with pq.ParquetFile(path) as file:
        found = list(batches(file, ["image"]))
    assert sum(map(len, found)) == 12
    assert max(batch.nbytes for batch in found) <= 1.1 * BATCH_BYTES
    entries = list(Table(path, "x#", BATCH_BYTES // 8).read(range(12)))
    assert {(one.outcome, one.data, one.size) for one in entries} == {
        ("too_large", b"", BATCH_BYTES // 4)
    }


def test_a_table_that_breaks_while_it_is_looked_at_is_one_line(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"photograph": [bytes(5000)] * 50}), path, compression="none")
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read") as caught:
        Table(path, "x#", 10**6)
    assert "\n" not in str(caught.value)
