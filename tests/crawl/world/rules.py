"""Behaviours of a search service: each rule answers a question, or leaves it to the next one."""

import math
from collections import deque
from collections.abc import Callable

from tests.crawl.world.shape import Answer, Question, Shape, picture_url

Rule = Callable[[Shape, Question], Answer | None]


def results(total: int, *, beyond: str = "nothing", filtered: int = 0) -> Rule:
    """So many results of a query, and `filtered` others with any filter.

    Args:
        beyond: what comes after the last page: "nothing", or "last page" again.
    """

    def rule(shape: Shape, asked: Question) -> Answer:
        narrowed = bool(asked.filters) and filtered > 0
        count, start = filtered if narrowed else total, asked.start
        if start >= count and beyond == "last page":
            start = (count - 1) // shape.page_results * shape.page_results
        numbers = range(start, min(start + shape.page_results, count))
        filters = asked.filters if narrowed else ""
        urls = [picture_url(asked.query, filters, number) for number in numbers]
        return shape.page(asked, urls, count, start)

    return rule


def same_page(count: int, total: int = 1000) -> Rule:
    """The first `count` results of a query, wherever the page is to begin."""

    def rule(shape: Shape, asked: Question) -> Answer:
        urls = [picture_url(asked.query, "", number) for number in range(count)]
        return shape.page(asked, urls, total, asked.start)

    return rule


def one_page_for_all(count: int, after: int = 0, but: tuple[str, ...] = ()) -> Rule:
    """The same unrelated results for whatever is asked, from request `after` + 1 on.

    Args:
        but: queries that are answered as they should be.
    """

    def rule(shape: Shape, asked: Question) -> Answer | None:
        if asked.number <= after or asked.query in but:
            return None
        urls = [picture_url("decoy", "", number) for number in range(count)]
        return shape.page(asked, urls, count, asked.start)

    return rule


def page_of(other: str, count: int) -> Rule:
    """Results of another query than was asked for, by what the page says too."""

    def rule(shape: Shape, asked: Question) -> Answer:
        urls = [picture_url(other, "", number) for number in range(count)]
        question = Question(other, "", asked.start, fields=asked.fields)
        return shape.page(question, urls, count, asked.start)

    return rule


def at(*numbers: int, give: Callable[[Shape, Question], Answer]) -> Rule:
    """Another answer to the requests of these numbers, counted from 1."""
    return lambda shape, asked: give(shape, asked) if asked.number in numbers else None


def every(step: int, give: Callable[[Shape, Question], Answer]) -> Rule:
    """Another answer to every so manyth request."""
    return lambda shape, asked: give(shape, asked) if asked.number % step == 0 else None


def first_times(times: int, query: str, give: Callable[[Shape, Question], Answer]) -> Rule:
    """Another answer the first times that a page of this query is asked for."""
    return lambda shape, asked: (
        give(shape, asked) if asked.query == query and asked.times <= times else None
    )


def busy(shape: Shape, asked: Question) -> Answer:
    """ "Not now", with status 200."""
    return shape.busy()


def empty(shape: Shape, asked: Question) -> Answer:
    """An empty body with status 200."""
    return Answer(b"")


def nothing(shape: Shape, asked: Question) -> Answer:
    """A page of no results."""
    return shape.nothing(asked)


def first_results(shape: Shape, asked: Question) -> Answer:
    """The first page of the query, whichever was asked for."""
    urls = [picture_url(asked.query, "", number) for number in range(shape.page_results)]
    return shape.page(asked, urls, 1000, asked.start)


def odd(shape: Shape, asked: Question) -> Answer:
    """Neither results nor an error, with status 200."""
    return shape.odd()


def always(body: bytes, status: int, **headers: str) -> Rule:
    """One answer to everything."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda shape, asked: Answer(body, status, named)


def needs_contact(body: bytes = b"Please set a user-agent that names you\n") -> Rule:
    """Refuses clients that name no way to reach their owner."""

    def rule(shape: Shape, asked: Question) -> Answer | None:
        agent = asked.headers.get("User-Agent", "")
        if "http" in agent or "@" in agent:
            return None
        return Answer(body, 403, {"Content-Type": "text/plain"})

    return rule


def limit(requests: int, seconds: float, *, told: bool = True) -> Rule:
    """At most so many requests in any so many seconds; those that are refused do not count."""
    granted: deque[float] = deque()

    def rule(shape: Shape, asked: Question) -> Answer | None:
        while granted and asked.seconds - granted[0] >= seconds:
            granted.popleft()
        if len(granted) < requests:
            granted.append(asked.seconds)
            return None
        since = granted[0] if granted else asked.seconds
        return shape.limited(math.ceil(seconds - (asked.seconds - since)), told)

    return rule


def most_of_a_query(count: int, status: int = 401) -> Rule:
    """Refuses pages beyond so many results of a query."""
    body = b'{"detail": "anonymous requests may not exceed a total of %d results"}' % count

    def rule(shape: Shape, asked: Question) -> Answer | None:
        return Answer(body, status) if asked.start >= count else None

    return rule
