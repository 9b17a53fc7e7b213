"""The best rows of each class, in bounded memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LEAST_PENDING = 50_000  # rows that wait to be ranked, at least
SCHEMA = pa.schema(
    [
        ("label", pa.int64()),
        ("query", pa.int64()),
        ("several", pa.bool_()),  # the caption names other classes, too
        ("varied", pa.bool_()),  # it is by a synonym alone that it names the class
        ("similarity", pa.float64()),  # of caption and image; -inf where the table has none
        ("length", pa.int64()),  # of the caption, in letters
        ("row", pa.int64()),  # in the order of reading
        *((name, pa.large_string()) for name in ("url", "title", "licence", "licence_url")),
        *((name, pa.large_string()) for name in ("page_url", "creator")),
    ]
)


class Best:
    """Keeps the first `most` rows of every class with distinct addresses.

    A caption that names one class comes before those that name several; then one with a query of
    the class's own before those with a synonym, then the higher similarity of caption and image,
    then the shorter caption, then the order of reading.

    Attributes:
        repeated: rows left out because a better one has their address.
    """

    def __init__(self, classes: int, most: int) -> None:
        self.classes, self.most, self.repeated = classes, most, 0
        self._kept = SCHEMA.empty_table()
        self._pending: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Takes more rows of `SCHEMA`."""
        self._pending.append(rows)
        self._rows += len(rows)
        if self._rows >= max(LEAST_PENDING, len(self._kept)):
            self._rank()

    def table(self) -> pa.Table:
        """The rows that are kept, class by class, best first; an address is there once.

        Under captions of several classes it goes to the one where it ranks higher.
        """
        self._rank()
        found = self._kept
        labels = found["label"].to_numpy()
        ranks = _ranks(labels, self.classes)
        order = np.lexsort((labels, ranks, found["several"].to_numpy()))
        first = order[_first(found["url"].take(pa.array(order)))]
        self.repeated += len(found) - len(first)
        return found.take(pa.array(np.sort(first)))

    def _rank(self) -> None:
        found = pa.concat_tables([self._kept, *self._pending])
        self._pending, self._rows = [], 0
        labels, several = found["label"].to_numpy(), found["several"].to_numpy()
        similarity, length = found["similarity"].to_numpy(), found["length"].to_numpy()
        keys = (found["row"].to_numpy(), length, -similarity, found["varied"].to_numpy(), several)
        order = np.lexsort((*keys, labels))
        labels = labels[order]
        first = np.sort(_first(found["url"].take(pa.array(order)), labels))
        self.repeated += len(order) - len(first)
        labels, order = labels[first], order[first]
        order = order[_ranks(labels, self.classes) < self.most]
        self._kept = found.take(pa.array(order)).combine_chunks()


def _first(urls: pa.ChunkedArray, labels: np.ndarray | int = 0) -> np.ndarray:
    """The first place of every address, of every label if there are some."""
    codes = pc.dictionary_encode(urls.combine_chunks())
    keys = codes.indices.to_numpy().astype(np.int64) + labels * len(codes.dictionary)
    return np.unique(keys, return_index=True)[1]


def _ranks(labels: np.ndarray, classes: int) -> np.ndarray:
    """Place within its label, of labels in ascending order."""
    starts = np.searchsorted(labels, np.arange(classes))
    return np.arange(len(labels)) - starts[labels]
