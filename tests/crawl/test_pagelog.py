import errno
import resource

import pytest

from kd3_pipeline.crawl.engines.engine import Result, ResultPage
from kd3_pipeline.crawl.pagelog import LoggedPage, PageLog

KEY, OTHER = ("bing", "http://0.test/?q=a"), ("flickr", "http://0.test/?q=a")
RESULTS = [
    Result("http://0.test/1.jpg", "p", "t\n\ud800é", "th", "CC0", "http://0.test/l", "me"),
    Result("http://0.test/2.jpg", original="http://0.test/large/2.jpg"),
]
PAGE, LAST = ResultPage(RESULTS, 20), ResultPage([], None)


def test_pages_are_there_after_a_restart(tmp_path):
    with PageLog(tmp_path / "new") as log:
        assert log.pages == {}
        log.add(KEY, PAGE)
        log.add(OTHER, LAST, "its limit")
        assert log.pages == {KEY: LoggedPage(PAGE), OTHER: LoggedPage(LAST, "its limit")}
    with PageLog(tmp_path / "new") as log:
        assert log.pages == {KEY: LoggedPage(PAGE), OTHER: LoggedPage(LAST, "its limit")}


@pytest.mark.parametrize(
    "torn", [b"{", b'{"engine": "bing", "page": "x", "results": []}', b"\x00" * 50]
)
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    with PageLog(tmp_path) as log:
        log.add(KEY, PAGE)
    with (tmp_path / "pages.jsonl").open("ab") as file:
        file.write(torn)
    with PageLog(tmp_path) as log:
        assert log.pages == {KEY: LoggedPage(PAGE)}
        log.add(OTHER, LAST, "its limit")
    with PageLog(tmp_path) as log:
        assert log.pages == {KEY: LoggedPage(PAGE), OTHER: LoggedPage(LAST, "its limit")}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff",
        b"[]",
        b"3",
        b'{"engine": "x"}',
        b'{"engine": "x", "page": "y", "results": [3]}',
        b'{"engine": "x", "page": "y", "results": [{"url": "u", "new": 1}]}',
        b'{"engine": "x", "page": "y", "results": 3}',
        b'{"engine": "x", "page": "y", "results": [], "next": "20", "ended": ""}',
        b'{"engine": "x", "page": "y", "results": [], "next": 20, "ended": null}',
    ],
)
def test_a_line_that_is_no_page_loses_only_itself(tmp_path, line):
    with PageLog(tmp_path) as log:
        log.add(KEY, PAGE)
    with (tmp_path / "pages.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with PageLog(tmp_path) as log:
        log.add(OTHER, LAST, "its limit")
    with PageLog(tmp_path) as log:
        assert log.pages == {KEY: LoggedPage(PAGE), OTHER: LoggedPage(LAST, "its limit")}


def test_pages_of_an_earlier_version_are_counted_and_asked_for_again(tmp_path):
    line = b'{"engine": "bing", "page": "http://0.test/?q=a", "results": [{"url": "u"}]}\n'
    (tmp_path / "pages.jsonl").write_bytes(line)
    with PageLog(tmp_path) as log:
        assert (log.pages, log.outdated) == ({}, {KEY})
        log.add(KEY, PAGE)
    with PageLog(tmp_path) as log:
        assert (log.pages, log.outdated) == ({KEY: LoggedPage(PAGE)}, set())


def test_a_page_that_was_false_is_forgotten_for_good(tmp_path):
    with PageLog(tmp_path) as log:
        log.add(KEY, PAGE)
        log.add(OTHER, PAGE)
        log.forget([KEY, ("bing", "never there")])
        assert log.pages == {OTHER: LoggedPage(PAGE)}
    with PageLog(tmp_path) as log:
        assert log.pages == {OTHER: LoggedPage(PAGE)}
        log.add(KEY, LAST)
    with PageLog(tmp_path) as log:
        assert log.pages[KEY] == LoggedPage(LAST)


def test_clearing_forgets_every_page(tmp_path):
    with PageLog(tmp_path) as log:
        log.add(KEY, PAGE)
        log.clear()
        assert log.pages == {}
        log.add(OTHER, PAGE)
    with PageLog(tmp_path) as log:
        assert log.pages == {OTHER: LoggedPage(PAGE)}


def test_a_disk_that_fills_up_is_an_error_and_not_a_half_page(tmp_path):
    with PageLog(tmp_path) as log:
        log.add(KEY, PAGE)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (tmp_path / "pages.jsonl").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # the kernel's short write
            with pytest.raises(OSError) as caught:
                log.add(OTHER, LAST, "its limit")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.ENOSPC
    with PageLog(tmp_path) as log:
        assert log.pages == {KEY: LoggedPage(PAGE)}
