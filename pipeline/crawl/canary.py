"""Canary of a search: is a page the one that was asked for, and do other words bring other images?

A service that takes a client for a robot need not refuse it. It may answer every query with the
same page, or with one that has nothing to do with the query; nothing but a comparison tells.
"""

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from urllib.parse import unquote_plus

from kd3_pipeline.crawl.engines.engine import Query, Result, ResultPage

# A list is judged from so many addresses on: of a rare thing, an engine has few images, and may
# fill up with the same ones whatever it is asked.
FEWEST = 5
# Of two unrelated everyday nouns, no engine has more than a stray image in common: lists of any
# length are judged, since there are thousands of images of each.
UNRELATED_SHARE = 0.2
# Classes may be near to each other: a pickup truck is a truck, and some results are the same.
# Half of the smaller list is more than other words for other things bring.
CLASS_SHARE = 0.5
# Each of another field than its neighbours, and with thousands of images in every engine.
NOUNS = (
    *("bicycle", "pancakes", "lighthouse", "violin", "cactus", "umbrella", "waterfall"),
    *("wristwatch", "strawberry", "typewriter", "windmill", "chessboard", "penguin", "candle"),
    *("volcano", "teapot", "telescope", "sushi", "staircase", "accordion", "snowflake"),
    *("tractor", "necklace", "library", "sunflower", "hammock", "compass", "spaghetti"),
)
ENDING = 2  # letters by which a plural is longer, at most


def addresses(results: Iterable[Result]) -> set[str]:
    """What is compared: the original where the engine gives a smaller picture."""
    return {one.original or one.url for one in results}


def shared(a: Sequence[Result], b: Sequence[Result]) -> float:
    """Share of the smaller list's addresses that the other one has too; 0 if one is empty."""
    first, second = addresses(a), addresses(b)
    return len(first & second) / (min(len(first), len(second)) or 1)


def canary_queries(texts: Iterable[str]) -> tuple[str, str]:
    """Two everyday nouns that have nothing to do with each other, nor with the crawl's queries.

    Of a crawl that asks for all but one of them, a queried one is taken.
    """
    asked = "\n".join(texts).casefold()
    free = [noun for noun in NOUNS if noun not in asked]
    first, second, *_ = dict.fromkeys([*free, *NOUNS])
    return first, second


def canary_alarm(queries: Sequence[str], lists: Sequence[Sequence[Result]]) -> str:
    """Why the first pages of two unrelated queries cannot both be right; "" if they can."""
    common = len(addresses(lists[0]) & addresses(lists[1]))
    share = shared(lists[0], lists[1])
    if share < UNRELATED_SHARE or (common == 1 and share < 1):
        return ""
    return (
        f"'{queries[0]}' and '{queries[1]}' have nothing to do with each other, and {share:.0%} of"
        " the addresses are the same: it does not answer what it is asked"
    )


def wrong_page(query: Query | str, page: ResultPage) -> str:
    """Why a page is not the one that was asked for; "" if it is, or does not say what it is.

    Case, spaces, signs, and how an address encodes them make no difference.
    """
    wanted = query if isinstance(query, str) else query.text
    if not page.query or _letters(page.query) == _letters(wanted):
        return ""
    return f"its page is an answer to '{page.query}', and '{wanted}' was asked for"


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKC", html.unescape(unquote_plus(text))).casefold()
    return "".join(filter(str.isalnum, plain)) or "".join(plain.split())


class SharedLists:
    """Results of the queries so far, by which a list that two classes are given is found.

    A class's queries may share all they like, and so may two classes whose queries say the same
    (`crane` the bird and `crane` the machine, `sunglass` and `sunglasses`) or of which one says
    more of the other (what is found for `pickup truck` is found for `truck`).
    """

    def __init__(self) -> None:
        self._lists: list[tuple[str, str, int]] = []  # class, query, addresses
        self._owners: defaultdict[str, list[int]] = defaultdict(list)  # address → lists

    def add(self, class_name: str, query: str, results: Sequence[Result]) -> str:
        """Adds what a query brought; says with whom it shares that, "" if with no other class."""
        found = addresses(results)
        common = Counter(owner for one in found for owner in self._owners[one])
        said = ""
        for owner, count in common.most_common():
            other_class, other_query, other_size = self._lists[owner]
            smaller = min(len(found), other_size)
            if smaller < FEWEST or count < CLASS_SHARE * smaller:
                continue
            if other_class != class_name and not _says_more(query, other_query):
                said = (
                    f"'{other_query}' (class '{other_class}') and '{query}' (class '{class_name}')"
                    f" bring the same images: {count:,} of {smaller:,} addresses"
                )
                break
        for one in found:
            self._owners[one].append(len(self._lists))
        self._lists.append((class_name, query, len(found)))
        return said


def _says_more(one: str, other: str) -> bool:
    """Whether all words of one query are in the other, but for the ending of a plural."""
    few, many = sorted((_words(one), _words(other)), key=len)
    matched = {word for word, near in product(few, many) if _alike(word, near)}
    return matched == few


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _alike(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and len(long) - len(short) <= ENDING
