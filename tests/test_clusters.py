"""What a person is told where a cluster cannot be had; none is needed for it."""

import socket
import sys
import time
from types import ModuleType

import pytest

from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.extras import install_extra


@pytest.fixture
def installed(monkeypatch):
    """As if both libraries were; no test here comes to call them."""
    for name in ("ray", "distributed"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


def square(number: int) -> int:
    return number * number


def asked(environ: dict[str, str]) -> list[int]:
    with Engine.chosen(environ) as engine:
        return list(engine.map(square, range(3)))


@pytest.mark.parametrize(("kind", "library"), [("ray", "ray"), ("dask", "distributed")])
def test_without_the_library_one_line_names_the_extra(monkeypatch, kind, library):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(UserError) as caught:
        asked({f"{kind.upper()}_ADDRESS": "127.0.0.1:1"})
    assert str(caught.value) == (
        f"{kind} at 127.0.0.1:1: this takes the extra '{kind}': {install_extra(kind)}"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["ray", "dask"])
def test_an_address_that_refuses_is_told_at_once(installed, kind):
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(ExternalError) as caught:
            asked({"PIPELINE_ENGINE": f"{kind}:127.0.0.1:{port}"})
        assert time.monotonic() - start < 5
    assert str(caught.value) == (
        f"{kind} at 127.0.0.1:{port} does not answer: Connection refused: does it run, and on this"
        " port?"
    )


@pytest.mark.parametrize(
    "address", ["auto", "local", "ray://here:10001", "here:port", ":6379", "tcp://here:1"]
)
def test_ray_is_never_looked_for_nor_taken_by_another_door(installed, address):
    with pytest.raises(UserError, match=r"^ray at '.*': expected HOST:PORT of the cluster"):
        asked({"RAY_ADDRESS": address})


def test_the_option_goes_before_ray_and_dask_and_these_exclude_each_other():
    both = {"RAY_ADDRESS": "a:1", "DASK_ADDRESS": "b:2"}
    assert Engine.chosen({"RAY_ADDRESS": "a:1"}).cluster == ("ray", "a:1")
    assert Engine.chosen({"DASK_ADDRESS": "tcp://b:2"}).cluster == ("dask", "tcp://b:2")
    assert Engine.chosen({"PIPELINE_ENGINE": "ray://a:1"}).cluster == ("ray", "a:1")
    chosen = Engine.chosen(both | {"PIPELINE_ENGINE": "processes:2"})
    assert (chosen.cluster, chosen.threads) == (None, 2)
    with pytest.raises(UserError, match=r"^engine 'ray:a:1 and dask:b:2': expected processes:N"):
        Engine.chosen(both)
