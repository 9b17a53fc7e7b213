"""What `pipeline crawl` says of its images besides the counts, and of classes without any."""

from collections.abc import Iterator
from typing import Any

from kd3_pipeline.console import printable
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import PLACEHOLDER
from kd3_pipeline.params import Crawl
from kd3_stages import paths

MOST_NAMED = 10  # classes in a message
MOST_HOSTS = 3


def refuse_empty(section: Crawl, summary: dict[str, Any]) -> None:
    """Ends the command where a class has no image at all; what the others have is written.

    Raises:
        ExternalError: there is such a class, and `crawl.empty_classes` does not keep it.
    """
    names = summary["empty"]
    if not names or section.empty_classes == "keep" or section.engine == "files":
        return
    named = ", ".join(map(printable, names[:MOST_NAMED]))
    more = f", and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    left = summary["later"]["images"] or summary["later"]["pages"]
    again = "run the same command again later, " if left else ""
    raise ExternalError(
        f"crawl: no image of {len(names):,} of {len(summary['classes']):,} classes: {named}{more};"
        f" what the others have is in {paths.CRAWL}",
        f"{again}take other queries (crawl.classes) or another engine (crawl.engine), or go on"
        " without with crawl.empty_classes: keep",
    )


def remarks(section: Crawl, summary: dict[str, Any]) -> Iterator[str]:
    """What was decided about images that a person may see otherwise."""
    outcomes = summary["outcomes"]
    if count := outcomes.get(PLACEHOLDER, 0):
        yield (
            f"{count:,} candidates gave an image that says “not available”, as far as can be told,"
            f" and are put aside: see outcome '{PLACEHOLDER}' and its detail in {paths.MANIFEST};"
            " crawl.placeholder_urls: 0 keeps them"
        )
    if hosts := summary["one_for_many"]:
        named = ", ".join(
            f"{printable(host)} {count:,}" for host, count in list(hosts.items())[:MOST_HOSTS]
        )
        more = f" and {len(hosts) - MOST_HOSTS:,} more hosts" if len(hosts) > MOST_HOSTS else ""
        referer = (
            "although crawl.referer sent the page"
            if section.referer
            else "crawl.referer: true sends the page that shows an image, without which some hosts"
            " answer a placeholder"
        )
        yield f"one picture for many addresses: {named}{more}; {referer}"
    if count := outcomes.get("damaged", 0):
        yield (
            f"{count:,} JPEGs are refused because data is missing or was overwritten: see outcome"
            f" 'damaged' in {paths.MANIFEST}; crawl.damaged: keep keeps them"
        )
    if section.engine == "files" and (names := summary["empty"]):
        yield (
            f"{len(names):,} of {len(summary['classes']):,} classes have no picture:"
            f" {', '.join(map(printable, names[:MOST_NAMED]))}{', …' * (len(names) > MOST_NAMED)}"
        )
    asked = section.per_class * max(1, len(summary["classes"]))
    if section.engine in ("files", "site") and not section.sample and summary["stored"] > asked:
        yield (
            f"all {summary['stored']:,} images are taken: crawl.per_class ({section.per_class:,})"
            f" does not count for the engine {section.engine}; crawl.sample takes fewer"
        )
    if count := summary["brightened"]:
        yield (
            f"{count:,} images of 16 bits use fewer, and are read as such: brighter than they were"
            f" written (see detail in {paths.MANIFEST})"
        )
    if count := summary["colours_unread"]:
        yield (
            f"{count:,} images say their colours in a way that is not understood, and are taken for"
            f" sRGB (see detail in {paths.MANIFEST})"
        )
