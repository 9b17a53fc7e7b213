"""When an image was fetched is known, but for the demo's web, which is the same at any time."""

from datetime import UTC, datetime, timedelta

from kd3_pipeline.crawl.exchange import DEMO
from kd3_pipeline.crawl.exchange import _now as now
from kd3_pipeline.demo.server import DemoWeb


def test_a_time_is_in_utc_and_to_the_second() -> None:
    at = datetime.fromisoformat(now("https://a.example/1.jpg"))
    assert at.tzinfo == UTC and at.microsecond == 0
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=5)


def test_the_demos_hosts_have_no_time() -> None:
    with DemoWeb(1) as web:
        assert web.names and all(name.endswith(DEMO) for name in web.names)
        assert {now(f"http://{name}:80/1.jpg") for name in web.names} == {""}
