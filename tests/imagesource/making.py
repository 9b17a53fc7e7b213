"""Sources of pictures as other tools write them, made small."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kd3_pipeline.crawl.collection import read_collection
from kd3_pipeline.imagesource.entries import Entry
from kd3_pipeline.imagesource.matching import Matcher
from kd3_pipeline.manifest import Candidate
from tests.crawl.hosts import picture

MOST = 1 << 20


def files_of(root: Path, files: Mapping[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def tar_of(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def table_of(path: Path, columns: Mapping[str, Any], names: Mapping[str, list[str]] | None = None):
    """A Parquet file; `names` are those of class columns, as Hugging Face writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {
        column: {"names": of_column, "_type": "ClassLabel"}
        for column, of_column in (names or {}).items()
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    pq.write_table(pa.table(dict(columns)).replace_schema_metadata(metadata), path)
    return path


def as_bytes(value: Any) -> bytes:
    """JSON as a file has it."""
    return json.dumps(value).encode()


class Read:
    """What the engine `files` makes of a source: candidates, entries, and what it tells."""

    def __init__(self, path: Path, classes: tuple[str, ...] = (), **options: int) -> None:
        self.lines: list[str] = []
        given = {"sample": 0, "seed": 0, "max_bytes": MOST} | options
        matcher = Matcher(lambda: list(classes))
        self.rows: list[tuple[Candidate, Entry]] = list(
            read_collection(path, matcher=matcher, lines=self.lines, **given)
        )

    @property
    def outcomes(self) -> dict[str, str]:
        """Name → outcome, "" for a picture."""
        return {entry.name: entry.outcome for _, entry in self.rows}

    @property
    def classes(self) -> dict[str, tuple[int, str]]:
        """Name → label and class, of pictures."""
        return {
            entry.name: (one.label, one.class_name) for one, entry in self.rows if not entry.outcome
        }

    def one(self, name: str) -> tuple[Candidate, Entry]:
        """The row of this name."""
        [row] = [row for row in self.rows if row[1].name == name]
        return row

    def told(self, words: str) -> bool:
        """Tells whether some line has these words."""
        return any(words in line for line in self.lines)


PICTURES = [picture(index) for index in range(12)]
