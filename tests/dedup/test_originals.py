import numpy as np
import pyarrow as pa

from pipeline.dedup.originals import reader
from pipeline.store import StoredImage, shard_paths, write_shards


def test_rows_are_read_in_any_order_from_all_shards(tmp_path):
    names = [f"{place:064d}" for place in range(4105)]
    images = (StoredImage(name, name.encode(), -1, 1, 1, "PNG") for name in names)
    write_shards(tmp_path, images, [])
    places = np.arange(len(names))
    table = pa.table({"shard": places // 2000, "row": places % 2000})
    read = reader(shard_paths(tmp_path), table)
    for rows in ([0, 99, 100, 1999, 2000, 4104], [4000, 3, 2001, 3], []):
        assert list(read(np.array(rows, np.int64))) == [names[row].encode() for row in rows]
