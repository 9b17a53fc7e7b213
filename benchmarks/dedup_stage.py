"""Judgement of encoded pictures by the dedup stage and by imagededup: all that benchmarks call."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.pictures import fingerprints_of
from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.judgement import Rules, judge
from kd3_pipeline.dedup.near import candidate_pairs, radius_for
from kd3_pipeline.dedup.originals import close_up
from kd3_pipeline.dedup.provenance import Provenance
from kd3_pipeline.dedup.verifier import Verify, verifier
from kd3_pipeline.params import Dedup

SIMILARITY = Dedup().similarity
AT_ONCE = 2000  # pairs compared
IMAGEDEDUP_RADIUS = 10  # its default


@dataclass(frozen=True)
class Judged:
    """What is dropped of N pictures, why, and for which other."""

    dropped: np.ndarray  # bool [N]
    reasons: list[str]  # empty where kept
    original: np.ndarray  # int64 [N], -1 where it is dropped for no other's sake, or kept

    def count(self, reason: str) -> int:
        return self.reasons.count(reason)


def _verifier(fingerprints: Fingerprints, files: Sequence[bytes]) -> Verify:
    def close_ups(rows: np.ndarray, side: int) -> np.ndarray:
        made = {row: close_up(files[row], fingerprints.cut[row], side) for row in np.unique(rows)}
        return np.array([made[row] for row in rows])

    return verifier(fingerprints, close_ups)


def flag_pairs(
    fingerprints: Fingerprints, files: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs i < j of pictures that the stage takes for one (int64 [P]), and their similarity.

    Args:
        fingerprints: `benchmarks.pictures.fingerprints_of` the files.
        files: the encoded pictures.
    """
    i, j, _ = candidate_pairs(fingerprints.hashes, radius_for(len(files)), fingerprints.comparable)
    verify = _verifier(fingerprints, files)
    starts = range(0, len(i), AT_ONCE)
    found = [verify(i[at : at + AT_ONCE], j[at : at + AT_ONCE]) for at in starts]
    alike = np.concatenate([np.empty(0, np.float32), *found])
    least = alike >= SIMILARITY
    return i[least], j[least], alike[least]


def dropped(files: Sequence[bytes]) -> Judged:
    """The stage's judgement of encoded pictures, all of one class, without a test set."""
    fingerprints = fingerprints_of(files)
    defaults = Dedup()
    rules = Rules(
        radius_for(len(files)),
        SIMILARITY,
        defaults.similarity_across,
        defaults.compared,
        getattr(defaults, "low_information", "drop"),
    )
    nothing_known = Provenance()
    table = judge(fingerprints, _verifier(fingerprints, files), rules, nothing_known)
    ids = {id: row for row, id in enumerate(table["id"].to_pylist())}
    originals = [ids.get(id, -1) for id in table["duplicate_of"].to_pylist()]
    kept = np.array(table["kept"].to_pylist(), bool)
    return Judged(~kept, table["reason"].to_pylist(), np.array(originals, np.int64))


# answers each line, a folder, by what PHash finds there
CHILD = f"""
import json, logging, sys, warnings
answers, sys.stdout = sys.stdout, sys.stderr
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
from imagededup.methods import PHash
from imagededup.utils.general_utils import get_files_to_remove
method = PHash(verbose=False)
for line in sys.stdin:
    hashes = method.encode_images(image_dir=line.rstrip(chr(10)), num_enc_workers=0)
    found = method.find_duplicates(
        encoding_map=hashes, max_distance_threshold={IMAGEDEDUP_RADIUS}, num_dist_workers=0
    )
    answers.write(json.dumps([len(hashes), found, get_files_to_remove(found)]) + chr(10))
    answers.flush()
"""


@dataclass(frozen=True)
class Theirs:
    """What imagededup finds among N pictures."""

    removed: np.ndarray  # bool [N], by its `find_duplicates_to_remove`
    pairs: set[tuple[int, int]]  # i < j
    unread: int  # pictures that it could not read


class ImageDedup:
    """imagededup's PHash with its defaults, in a process of another environment's Python."""

    def __init__(self, python: Path) -> None:
        self._child = subprocess.Popen(
            [str(python), "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "ImageDedup":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.communicate()

    def judge(self, files: Sequence[bytes]) -> Theirs:
        """Duplicates among encoded pictures.

        Raises:
            SystemExit: the process has ended; what it said is above.
        """
        assert self._child.stdin and self._child.stdout
        with tempfile.TemporaryDirectory() as folder:
            for number, file in enumerate(files):
                Path(folder, f"{number:07}").write_bytes(file)
            try:
                self._child.stdin.write(f"{folder}\n")
                self._child.stdin.flush()
            except BrokenPipeError:
                pass  # the missing answer tells it
            answer = self._child.stdout.readline()
        if not answer:
            raise SystemExit("--imagededup: its process ended; is imagededup installed there?")
        read, found, remove = json.loads(answer)
        removed = np.zeros(len(files), bool)
        removed[[int(name) for name in remove]] = True
        near = {(int(name), int(other)) for name, others in found.items() for other in others}
        return Theirs(removed, {pair for pair in near if pair[0] < pair[1]}, len(files) - read)
