"""What a picture may take, as the stages' commands set it."""

import pytest

from kd3_pipeline import memory
from kd3_stages import command


@pytest.mark.parametrize("stage", ["crawl", "dedup", "embed", "report"])
def test_every_stage_goes_by_the_same_number(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("crawl: {picture_memory: 777}\n")
    try:
        command.start(stage, None, quiet=True, as_json=False)
        assert memory.allowed() == 777
        command.start(stage, ["crawl.picture_memory=888"], quiet=True, as_json=False)
        assert memory.allowed() == 888
    finally:
        memory.allow(memory.MEGABYTES)
