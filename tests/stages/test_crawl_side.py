"""`crawl.side`: how large a picture has to be at least, where an engine offers smaller ones."""

from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.engines.engine import Budget, Engine, Result, ResultPage, address
from kd3_stages import sources
from tests.crawl.hosts import Host, image, reply, serving
from tests.stages.workspace import invoke

PARAMS = """
teacher: {{input_size: 40}}
distill: {{batch_size: 2}}
crawl: {{classes: [cat], per_class: 4, side: {side}, expand: none, canary: false}}
"""


class Sizes(Engine):
    """Each picture in the size that is asked for, and the original's address."""

    name, host, page_gap = "sizes", "0.test", 0.0
    budget = Budget(page_results=1, query_results=1)

    def address(self, query, start):
        return address("http://0.test/search", side=query.side)

    def read(self, page, query, start):
        small = Result(f"http://0.test/{query.side}.jpg", original="http://0.test/full.jpg")
        return ResultPage([small if query.side else Result("http://0.test/full.jpg")], None)


@pytest.mark.parametrize(("side", "asked"), [("auto", 160), (0, 0), (77, 77)])
def test_it_is_four_times_the_teachers_input_or_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str | int, asked: int
) -> None:
    name = f"{asked}.jpg" if asked else "full.jpg"
    host = Host({"/search": reply(b"found"), f"/{name}": image(0)})
    (tmp_path / "params.yaml").write_text(PARAMS.format(side=side))
    with serving(host) as hosts:

        @contextmanager
        def engine_for(*arguments):
            yield Sizes(), hosts

        monkeypatch.setattr(sources, "engine_for", engine_for)
        invoke(tmp_path, "crawl")
    assert f"/search?side={asked}" in host.targets
    (row,) = pq.read_table(tmp_path / "data/crawl/manifest.parquet").to_pylist()
    assert row["url"] == f"http://0.test/{name}"
    assert row["original"] == ("http://0.test/full.jpg" if asked else "")
