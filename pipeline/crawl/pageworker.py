"""Process in which pages are read: what a hostile page does to it ends with it.

libxml2 compares each attribute of a tag with all before it: a page of a few hundred KiB holds it
for minutes, in which nothing interrupts it but its end.
"""

import json
import resource
import signal
import struct
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from kd3_pipeline.crawl.markup import PAGE_IMAGES, images_of, links_of, parsed
from kd3_pipeline.crawl.optouts.pages import page_heard, page_words

LENGTH = struct.Struct("<I")  # before each part of a message
NO_MEMORY = 77  # exit status of a process that a page took all of its memory


def content(body: bytes, kind: str, address: str, robot: str) -> dict[str, Any]:
    """What a page says of itself and what is on it, in the words of `PageContent`.

    Of an image there is the number of its title.
    """
    tree = parsed(body, kind)
    if tree is None:
        return {"words": [], "signals": [], "licences": [], "images": [], "titles": [], "links": []}
    said = page_heard(tree, address)
    # thousands of images may have the title of the page, which is told once
    titles: dict[str, int] = {}
    images = [
        (url, titles.setdefault(title, len(titles)), linked)
        for url, title, linked in islice(images_of(tree, address), PAGE_IMAGES)
    ]
    return {
        "words": sorted(page_words(tree, robot)),
        "signals": [asdict(signal) for signal in said.signals],
        "licences": said.licences,
        "images": images,
        "titles": list(titles),
        "links": list(links_of(tree, address)),
    }


def _limit(memory: int) -> None:
    """Lets this process take so many bytes beside those that it has, where the system counts them.

    That is Linux: elsewhere the time alone is limited.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except FileNotFoundError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # libraries map more than they use, by the number of cores
    most = pages * resource.getpagesize() + memory
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Answers messages on stdin, a header in JSON and the bytes of a page, until stdin ends."""
    inlet, outlet = sys.stdin.buffer, sys.stdout.buffer
    while length := inlet.read(LENGTH.size):
        header = json.loads(inlet.read(*LENGTH.unpack(length)))
        body = inlet.read(*LENGTH.unpack(inlet.read(LENGTH.size)))
        # of computing: at their end the system ends this process, wherever it is
        signal.setitimer(signal.ITIMER_PROF, header.pop("seconds"))
        _limit(header.pop("memory"))
        try:
            reply = json.dumps(content(body, **header)).encode()
        except MemoryError:
            sys.exit(NO_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        outlet.write(LENGTH.pack(len(reply)) + reply)
        outlet.flush()


if __name__ == "__main__":
    main()
