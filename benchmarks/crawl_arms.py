"""The arms of `crawl_speed`. Each runs alone in its process, so imports are part of its start-up.

    python -m benchmarks.crawl_arms ARM FOLDER

The folder has a `job.json`; images go into its folder `out`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONNECTIONS = 64
AGENT = "kd3-pipeline/0 (+benchmark)"
Job = dict[str, Any]


def ours(job: Job) -> None:
    """What `pipeline crawl` does for a list of URLs or a search, but with a host table."""
    import signal
    import ssl
    from collections import Counter

    from kd3_pipeline.classes import load_classes
    from kd3_pipeline.console import no_progress
    from kd3_pipeline.crawl.fetch import fetch
    from kd3_pipeline.crawl.gather import gather
    from kd3_pipeline.crawl.http import Web
    from kd3_pipeline.crawl.journal import Journal
    from kd3_pipeline.crawl.pack import pack
    from kd3_pipeline.manifest import Candidate, Fetched
    from kd3_pipeline.params import Crawl
    from kd3_pipeline.store import replacing

    classes = load_classes([f"class-{label}" for label in range(job["classes"])])
    names = [one.name for one in classes.classes]
    hosts = {name: (ip, port) for name, (ip, port) in job["hosts"].items()}
    params = Crawl(per_class=job["per_class"])
    if not job["polite"]:
        freely = {"connections_per_host": CONNECTIONS, "host_gap": 0.0}
        params = params.model_copy(update=freely)
    web = Web(AGENT, hosts, ssl.create_default_context(cafile=job["trusted"]))
    decided: Counter[str] = Counter()

    def report(label: int, outcome: str) -> None:
        decided[outcome] += 1
        if decided.total() == job["stop_after"]:
            signal.raise_signal(signal.SIGINT)

    def get(candidates: Sequence[Candidate], refused: frozenset[str]) -> dict[Candidate, Fetched]:
        return fetch(candidates, params, journal, web, report, refused=refused)

    def listed(wanted: Sequence[int]) -> list[Candidate]:
        return candidates

    def searched(wanted: Sequence[int]) -> list[Candidate]:
        from kd3_pipeline.crawl.class_search import Manner
        from kd3_pipeline.crawl.engines.bing import Bing
        from kd3_pipeline.crawl.pagelog import PageLog
        from kd3_pipeline.crawl.search import Search

        engine = Bing("demo", job["search"], 0.0)
        manner = Manner(filters=False, expand="none", canary=False)
        with PageLog(journal.folder) as log:
            search = Search(engine, classes, manner, web, log, journal.folder)
            return search.candidates(wanted, no_progress)

    candidates = [
        Candidate(label, names[label], "urls", "", rank, url)
        for rank, (label, url) in enumerate(job["urls"])
    ]
    with Journal(Path(job["folder"]) / "cache") as journal:
        source = searched if job["search"] else listed
        gathered = gather(source, get, len(names), job["per_class"], 0, lambda _: False)
        with replacing(Path(job["folder"]) / "out") as folder:
            pack(folder, gathered, journal, names)


def icrawler(job: Job) -> None:
    """One crawl a class, as its `max_num` and its folders are meant."""
    import logging

    from icrawler.builtin import UrlListCrawler

    for label in range(job["classes"]):
        urls = [url for of, url in job["addresses"] if of == label]
        crawler = UrlListCrawler(
            downloader_threads=CONNECTIONS,
            storage={"root_dir": f"{job['folder']}/out/{label}"},
            log_level=logging.ERROR,
        )
        crawler.crawl(urls, max_num=len(urls))


def bare(job: Job) -> None:
    """Bytes into memory, unchecked; to disk after the last one, only to be counted."""
    import asyncio
    import ssl

    import aiohttp

    async def get_all() -> list[bytes]:
        tls = ssl.create_default_context(cafile=job["trusted"])
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def get(url: str) -> bytes:
                async with session.get(url) as answer:
                    return await answer.read()

            return await asyncio.gather(*(get(url) for _, url in job["addresses"]))

    for number, data in enumerate(asyncio.run(get_all())):
        Path(job["folder"], "out", str(number)).write_bytes(data)


SEARCHING = "ours with search"
ARMS: dict[str, Callable[[Job], None]] = {
    "ours": ours,
    SEARCHING: ours,
    "icrawler": icrawler,
    "bare": bare,
}


def img2dataset(job: Job, python: str) -> list[str]:
    """Its command, for a Python of its own; the list of URLs is written here."""
    listed = Path(job["folder"]) / "urls.txt"
    listed.write_text("".join(f"{url}\n" for _, url in job["addresses"]))
    options = {
        "url_list": listed,
        "output_folder": f"{job['folder']}/out",
        "processes_count": 1,
        "thread_count": CONNECTIONS,
        "resize_mode": "no",
        "skip_reencode": True,
    }
    start = "from img2dataset.main import main; main()"
    return [python, "-c", start, *(f"--{name}={value}" for name, value in options.items())]


def main(arm: str, folder: str) -> None:
    """Runs one arm, and prints the most memory that it had in MB (Linux)."""
    job = json.loads(Path(folder, "job.json").read_text())
    try:
        ARMS[arm](job)
    except KeyboardInterrupt:
        if not job["stop_after"]:
            raise
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"peak_mb": peak / 1e6}))


if __name__ == "__main__":
    main(*sys.argv[1:])
