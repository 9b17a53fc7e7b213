"""Lineage of images that leave the crawl: what was made of them, and what is to be run now."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.embeddings import IMAGES
from kd3_pipeline.store import read_table
from kd3_stages import paths
from kd3_stages.steps.dvcfiles import listed, mapping, outputs_of, read_yaml

SOURCES = paths.EXPORT / "sources.parquet"
COMMANDS = ("dvc commit -f crawl", "dvc repro")
CLEAN = ("dvc gc -w", "dvc gc -w -c")
FEW = 6  # ids shown
HOLDERS = {  # table of images -> what has, or shows, pixels or features of them
    paths.EMBED / IMAGES: (paths.EMBED, paths.REPORT),
    paths.DEDUP: (paths.CACHE / "dedup", paths.SHEET, paths.CONTAMINATION),
}


@dataclass(frozen=True)
class Lineage:
    """What has seen some images.

    Attributes:
        dropped: how many images it is about.
        trained: images that the student was trained on, in an epoch or more.
        held_out: images that only measured its agreement.
        exported: images that the exported student was trained on, by its sources.
        copies: files that hold pixels or features of them -> how many images.
        stale: stages whose results are of the crawl as it was.
        changed: data/crawl is not what dvc.lock has, in a folder with a dvc.yaml.
    """

    dropped: int
    trained: tuple[str, ...]
    held_out: int
    exported: int
    copies: dict[str, int]
    stale: tuple[str, ...]
    changed: bool

    def lines(self) -> list[str]:
        """The same for a person."""
        lines = []
        if self.trained:
            shown = ", ".join(id[:8] for id in self.trained[:FEW])
            more = ", …" * (len(self.trained) > FEW)
            lines.append(
                f"  trained on {len(self.trained):,} of them: {paths.STUDENT} ({shown}{more}; by"
                f" {paths.SELECTION})"
            )
        if self.exported:
            lines.append(f"  trained on {self.exported:,} of them: {paths.EXPORT} (by {SOURCES})")
        if self.held_out:
            lines.append(f"  {self.held_out:,} of them measured the student's agreement")
        if self.dropped and not self.trained and not self.exported:
            lines.append("  no student that is here was trained on them")
        for path, count in self.copies.items():
            lines.append(f"  pixels or features of up to {count:,} of them are still in {path}")
        if self.stale:
            lines.append(f"  stale now: {', '.join(self.stale)}")
        if self.changed:
            lines.append(f"  then run: {' && '.join(COMMANDS)}")
            lines.append(
                "  DVC keeps the old shards in its cache (and in its remotes, if pushed) until"
                f" `{CLEAN[0]}` (`{CLEAN[1]}`), which removes all that is not of this workspace"
            )
        return lines

    def values(self) -> dict[str, Any]:
        """The same for --json."""
        return {
            "students": {
                str(paths.STUDENT): {"trained_on": list(self.trained), "held_out": self.held_out},
                str(paths.EXPORT): {"trained_on": self.exported},
            },
            "copies": self.copies,
            "stale": list(self.stale),
            "run": list(COMMANDS) if self.changed else [],
        }


def lineage_of(ids: Collection[str], changed: bool) -> Lineage:
    """What the stages' outputs, as they are here, have of images that are dropped.

    Args:
        changed: whether anything in data/crawl changes.

    Raises:
        UserError: a table cannot be read.
    """
    changed = changed and paths.DVC.exists()  # a folder with params.yaml alone has no stages
    wanted = pa.array(sorted(ids), pa.string())
    piped = paths.DVC.is_file()  # a folder where nothing but single commands was run has none
    chosen = _of(paths.SELECTION, ["id", "times_kept", "held_out"], wanted)
    used = chosen.filter(pc.greater(chosen["times_kept"], 0))
    copies: dict[str, int] = {}
    for table, holders in HOLDERS.items():
        if count := len(_of(table, ["id"], wanted)):
            copies |= {str(path): count for path in holders if path.exists()}
    return Lineage(
        dropped=len(ids),
        trained=tuple(used["id"].to_pylist()),
        held_out=pc.sum(chosen["held_out"]).as_py() or 0,
        exported=len(_of(SOURCES, ["id"], wanted)),
        copies=copies,
        stale=tuple(_stale()) if changed and piped else (),
        changed=changed and piped,
    )


def _of(path: Path, columns: list[str], ids: pa.Array) -> pa.Table:
    """Rows of these images; none where the stage was not run."""
    if not path.is_file():
        kinds = {"id": pa.string(), "times_kept": pa.int32(), "held_out": pa.bool_()}
        return pa.schema([(name, kinds[name]) for name in columns]).empty_table()
    table = read_table(path, columns)
    return table.filter(pc.is_in(table["id"], ids))


def _stale() -> list[str]:
    """Stages after the crawl, by dvc.yaml, that have outputs here, in order."""
    changed, found = [paths.CRAWL], []
    declared = mapping(read_yaml(paths.DVC), "stages")
    for name in declared:
        stage = mapping(declared, name)
        if any(_inside(Path(str(dep)), changed) for dep in listed(stage, "deps")):
            outs = outputs_of(stage)
            changed += outs
            found += [name] if any(out.exists() for out in outs) else []
    return found


def _inside(path: Path, folders: Collection[Path]) -> bool:
    return any(path == one or one in path.parents for one in folders)
