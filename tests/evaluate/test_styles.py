import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd3_pipeline.errors import UserError
from kd3_pipeline.evaluate.styles import load_styles
from kd3_pipeline.frames import Frame


def picture(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), (value, value, value)).save(out, "PNG")
    return out.getvalue()


def folder(root: Path, *files: str) -> Path:
    for value, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(value))
    return root


def table(path: Path, column: str, styles: list[str], labels: list[int], names=("cat", "dog")):
    rows = [{"bytes": picture(row), "path": "x.png"} for row in range(len(styles))]
    features = {"label": {"names": list(names), "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"image": rows, "label": labels, column: styles}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def test_a_folder_of_styles_is_read_in_the_order_of_their_names(tmp_path):
    source = folder(
        tmp_path, "sketch/dog/a.png", "photo/cat/a.png", "photo/dog/a.png", "photo/emu/a.png"
    )
    styles, told = load_styles(str(source), Frame(16), ["dog", "horse", "cat"])
    assert [style.name for style in styles] == ["photo", "sketch"]
    assert [style.labels.tolist() for style in styles] == [[2, 0], [0]]
    assert styles[0].pixels.shape == (2, 16, 16, 3)
    assert styles[0].pixels[:, 0, 0, 0].tolist() == [1, 2]
    assert any("1 images are of classes" in note and "emu 1" in note for note in told)


@pytest.mark.parametrize("column", ["style", "domain"])
def test_a_table_is_split_by_its_column(tmp_path, column):
    path = table(tmp_path / "a.parquet", column, ["b", "a", "b"], [0, 1, 1])
    styles, told = load_styles(str(path), Frame(8), ["dog", "cat"])
    assert [(style.name, style.labels.tolist()) for style in styles] == [("a", [0]), ("b", [1, 0])]
    assert styles[1].pixels[:, 0, 0, 0].tolist() == [0, 2]
    assert not any("left out" in note for note in told)


def test_a_style_without_a_known_class_is_left_out(tmp_path):
    path = table(tmp_path / "a.parquet", "style", ["b", "a", "b"], [0, 1, 0])
    styles, told = load_styles(str(path), Frame(8), ["dog"])
    assert [style.name for style in styles] == ["a"]
    assert any("2 images are of classes" in note and "cat 2" in note for note in told)


def test_suites_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(UserError, match="no styles at nowhere"):
        load_styles("nowhere", Frame(8), ["dog"])
    path = table(tmp_path / "a.parquet", "style", ["a"], [0])
    with pytest.raises(UserError, match=r"cat, dog.*emu"):
        load_styles(str(path), Frame(8), ["emu"])
    path = table(tmp_path / "b.parquet", "painter", ["a"], [0])
    with pytest.raises(UserError, match="no column 'style' or 'domain'"):
        load_styles(str(path), Frame(8), ["dog"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of its classes"):
        load_styles(str(tmp_path / "empty"), Frame(8), ["dog"])


def test_every_decoded_image_is_progress(tmp_path):
    path = table(tmp_path / "a.parquet", "style", ["a", "b"], [0, 1])
    done: list[int] = []
    load_styles(str(path), Frame(8), ["dog"], done.append)
    assert sum(done) == 1  # the other one is of a class that is not known
    assert np.all(np.array(done) > 0)
