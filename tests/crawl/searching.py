"""A search as tests ask for it: real pages from servers on loopback."""

import html
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kd3_pipeline.classes import ClassSet, load_classes
from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl.class_search import Manner
from kd3_pipeline.crawl.engines.bing import Bing
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.pagelog import PageLog
from kd3_pipeline.crawl.search import Search
from tests.crawl.hosts import Host

PATH = "/images/async"
TABLE = '<div class="dgControl">{}</div>'


def page(*records):
    """A result page in Bing's form; records that are no text are written as JSON."""
    texts = (one if isinstance(one, str) else json.dumps(one) for one in records)
    links = (
        f'<div class="imgpt"><a class="iusc" m="{html.escape(text)}" href="#">x</a></div>'
        for text in texts
    )
    return TABLE.format("".join(links)).encode()


def images(query, numbers):
    """A result page with these images of a query."""
    return page(*({"murl": f"http://0.test/{query}/{number}.jpg"} for number in numbers))


def paged(total):
    """An engine's `answer` that has so many results for every query."""
    return lambda query, first: images(query, range(first, min(first + 20, total)))


def answering(answer):
    """A search engine that gives `answer(query, first)`: a page, or a status and headers."""
    host = Host()

    def route(request):
        found = answer(*fields(request.path))
        if isinstance(found, bytes):
            request.reply(found, 200, {"Content-Type": "text/html; charset=utf-8"})
        else:
            status, headers = found if isinstance(found, tuple) else (found, {})
            request.reply(b"oops", status, headers)

    host.routes[PATH] = route
    return host


def fields(target):
    """Query and offset of a request."""
    found = parse_qs(urlsplit(target).query, keep_blank_values=True)
    return found["q"][0], int(found["first"][0])


def asked(host):
    """(query, offset) of every request, in order."""
    return [fields(target) for target in host.targets]


def bing(gap=0.0, name="test"):
    """An engine in Bing's form, at the first host of `serving`."""
    return Bing(name, f"http://0.test{PATH}", gap)


PLAIN = Manner(filters=False, expand="none", canary=False)  # nothing but the classes' queries


def find(hosts, engine, classes, wanted=40, folder=None, licence="any", advance=None, manner=PLAIN):
    """Candidates; the log is in `folder`, and new without one."""
    return searched(hosts, engine, classes, wanted, folder, licence, advance, manner)[0]


def searched(
    hosts, engine, classes, wanted=40, folder=None, licence="any", advance=None, manner=PLAIN
):
    """Candidates, and the account of the search."""
    class_set = classes if isinstance(classes, ClassSet) else load_classes(classes)
    counts = [wanted] * len(class_set.classes) if isinstance(wanted, int) else wanted
    with PageLog(Path(folder)) as log:
        manner = replace(manner, licence=licence)
        search = Search(engine, class_set, manner, Web("kd3-test/1", hosts), log, Path(folder))
        found = search.candidates(counts, advance or no_progress)
        return found, search.account()
