"""Share of what a browser shows that crawlers save, over a web made after public bug reports.

    python -m benchmarks.share_saved --img2dataset /tmp/i2d/bin/python
    python -m benchmarks.share_saved --arms ours --list

200 addresses on loopback (`share_cases`), each with a picture of its own, or with none. The judge
is headless Chromium: an address counts as shown where an `<img>` with it has a width. Each crawler
gets the same list; what it saved is found by its bytes (icrawler) or by what it says of the address
(ours, and img2dataset, which writes the pictures anew). Nobody but ours has a table of hosts: for
the others a `sitecustomize` leads all names to the server.

What a crawler saved and the browser does not show may still be a whole picture, sent with a fault
(a length that is too large, a last chunk that is missing): whether it is one the browser says, too,
when it is given the bytes alone.

Some kinds are left on purpose, such as SVG, which has no pixels, or hosts whose robots.txt says
no: they are in the table, and the share is given with and without them.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.crawl_arms import AGENT, img2dataset
from benchmarks.share_cases import cases
from benchmarks.share_web import Case, hosts_of, serving

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --no-proxy-server
--disable-background-networking --disable-component-update --disable-sync"""
PAGE = "judge.test"
SHOW = """
const [urls, seconds, done] = arguments;
Promise.all(urls.map(url => new Promise(told => {
  const image = new Image();
  const tell = () => told(image.naturalWidth > 0);
  image.onload = image.onerror = tell;
  setTimeout(tell, 1000 * seconds);
  image.src = url;
}))).then(done);
"""
SECONDS = 20.0  # for an image to be shown
TIMEOUT = 5.0  # seconds for an image of ours
CHILD_TIMEOUT = 600.0  # seconds
WANTED = 0.95
CUSTOMIZE = """
import os, socket
_port, _names = int(os.environ["SHARE_PORT"]), set(os.environ["SHARE_NAMES"].split())
_plain = socket.getaddrinfo
def _lookup(host, *args, **options):
    name = host.decode() if isinstance(host, bytes) else host or ""
    if name.lower().rstrip(".") in _names:
        place = ("127.0.0.1", _port)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)]
    return _plain(host, *args, **options)
socket.getaddrinfo = _lookup
"""
WHOLE, TOLD = "whole.json", "told.json"  # what browser and ours say beside
Saved = list[bool]  # by address, in the order of the cases


@dataclass(frozen=True)
class Place:
    """Where the server is, and an empty folder for one arm."""

    listed: Sequence[Case]
    port: int
    folder: Path
    python: str  # of img2dataset

    def names(self) -> list[str]:
        """Of all hosts."""
        return hosts_of(self.listed)

    def environment(self) -> dict[str, str]:
        """For a client in a process of its own: all names lead to the server."""
        (self.folder / "sitecustomize.py").write_text(CUSTOMIZE)
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        path = os.pathsep.join([str(self.folder), os.getcwd()])
        names = " ".join(self.names())
        more = {"PYTHONPATH": path, "SHARE_PORT": str(self.port), "SHARE_NAMES": names}
        return clean | more | {"NO_ALBUMENTATIONS_UPDATE": "1"}

    def job(self) -> dict[str, Any]:
        """What the arms of `crawl_arms` read."""
        addresses = [(0, case.url) for case in self.listed]
        (self.folder / "out").mkdir()
        job = {"folder": str(self.folder), "classes": 1, "addresses": addresses, "stop_after": 0}
        (self.folder / "job.json").write_text(json.dumps(job))
        return job

    def stored(self, files: Sequence[bytes]) -> Saved:
        """Which addresses' bytes are among some files."""
        there = {hashlib.sha256(data).digest() for data in files}
        return [
            any(hashlib.sha256(data).digest() in there for data in case.files)
            for case in self.listed
        ]


def browser(place: Place) -> Saved:
    """What Chromium shows: each address, and then each file without its server's faults."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={place.folder / 'profile'}")
    options.add_argument(f"--host-resolver-rules=MAP * 127.0.0.1:{place.port}")
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_script_timeout(2 * SECONDS)
        driver.get(f"http://{PAGE}/")
        urls = [case.url for case in place.listed]
        # a picture says by itself which kind it is
        kind = "data:image/png;base64,"
        plain = [kind + b64encode(case.files[0]).decode() for case in place.listed if case.files]
        shown = driver.execute_async_script(SHOW, urls + plain, SECONDS)
    finally:
        driver.quit()
    files = iter(shown[len(urls) :])
    whole = [next(files) if case.files else False for case in place.listed]
    (place.folder / WHOLE).write_text(json.dumps(whole))
    return shown[: len(urls)]


def ours(place: Place) -> Saved:
    """What the crawl keeps, by its own `fetch` and its default rules."""
    from kd3_pipeline.crawl.fetch import fetch
    from kd3_pipeline.crawl.http import Web
    from kd3_pipeline.crawl.journal import Journal
    from kd3_pipeline.manifest import Candidate
    from kd3_pipeline.params import Crawl

    # without the pauses between requests, which cost no picture
    freely = {"connections_per_host": 8, "host_gap": 0.0, "timeout": TIMEOUT, "patience": 10.0}
    params = Crawl(per_class=len(place.listed)).model_copy(update=freely)
    hosts = {name: ("127.0.0.1", place.port) for name in place.names()}
    candidates = [
        Candidate(0, "class", "urls", "", rank, case.url) for rank, case in enumerate(place.listed)
    ]
    with Journal(place.folder) as journal:
        found = fetch(candidates, params, journal, Web(AGENT, hosts), lambda *_: None)
    records = [found[candidate] for candidate in candidates]
    told = [f"{record.outcome} {record.detail}".strip() for record in records]
    (place.folder / TOLD).write_text(json.dumps(told))
    return [record.id is not None for record in records]


def icrawler(place: Place) -> Saved:
    """What icrawler keeps."""
    place.job()
    command = [sys.executable, "-m", "benchmarks.crawl_arms", "icrawler", str(place.folder)]
    _run(command, place)
    paths = (place.folder / "out").rglob("*")
    return place.stored([path.read_bytes() for path in paths if path.is_file()])


def other(place: Place) -> Saved:
    """What img2dataset says that it kept."""
    import pyarrow.parquet as pq

    _run(img2dataset(place.job(), place.python), place)
    kept: set[str] = set()
    for path in (place.folder / "out").glob("*.parquet"):
        table = pq.read_table(path, columns=["url", "status"])
        kept |= {row["url"] for row in table.to_pylist() if row["status"] == "success"}
    return [case.url in kept for case in place.listed]


ARMS: dict[str, Callable[[Place], Saved]] = {
    "browser": browser,
    "ours": ours,
    "icrawler": icrawler,
    "img2dataset": other,
}


def _run(command: Sequence[str], place: Place) -> None:
    environment = place.environment()
    done = subprocess.run(command, capture_output=True, env=environment, timeout=CHILD_TIMEOUT)
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{done.stderr.decode(errors='replace')[-4000:]}")


def measured(arms: Sequence[str], seed: int, python: str) -> tuple[list[Case], dict[str, Any]]:
    """The addresses; what each arm saved of them, and what ours and the browser say of each."""
    listed, found = cases(seed), dict[str, Any]()
    for arm in arms:
        with tempfile.TemporaryDirectory() as folder, serving(listed) as (_, port):
            place = Place(listed, port, Path(folder), python)
            found[arm] = ARMS[arm](place)
            for name in (WHOLE, TOLD):
                if (path := Path(folder, name)).exists():
                    found[path.stem] = json.loads(path.read_text())
        print(f"  {arm}: {sum(found[arm])} of {len(listed)}", file=sys.stderr)
    return listed, found


def share(shown: Saved, saved: Saved, counted: Sequence[bool]) -> tuple[int, int]:
    """How many are saved of those that are shown and counted, and how many those are."""
    both = [mine for there, mine, one in zip(shown, saved, counted, strict=True) if there and one]
    return sum(both), len(both)


def table(listed: Sequence[Case], found: dict[str, Any], arms: Sequence[str]) -> None:
    """Kinds, and how many of each an arm saved; then the shares."""
    print(f"| kind | addresses | {' | '.join(arms)} |\n|---|---|{'---|' * len(arms)}")
    for kind in dict.fromkeys(case.kind for case in listed):
        places = [place for place, case in enumerate(listed) if case.kind == kind]
        cells = [str(sum(found[arm][place] for place in places)) for arm in arms]
        print(f"| {kind} | {len(places)} | {' | '.join(cells)} |")
    print(f"| all | {len(listed)} | {' | '.join(str(sum(found[arm])) for arm in arms)} |")
    if "browser" not in found:
        return
    shown = found["browser"]
    print("\n| | saved of what is shown | without what is left on purpose | ", end="")
    print("not shown, whole pictures | not shown, others |\n|---|---|---|---|---|")
    for arm in arms:
        if arm != "browser":
            of_all = share(shown, found[arm], [True] * len(listed))
            of_ours = share(shown, found[arm], [not case.refused for case in listed])
            cells = [f"{part} of {whole} ({part / whole:.1%})" for part, whole in (of_all, of_ours)]
            three = zip(found[arm], shown, found["whole"], strict=True)
            beyond = [whole for mine, there, whole in three if mine and not there]
            cells += [str(sum(beyond)), str(len(beyond) - sum(beyond))]
            print(f"| {arm} | {' | '.join(cells)} |")


def differences(listed: Sequence[Case], found: dict[str, Any]) -> None:
    """Every address where ours and the browser differ, and what ours says."""
    print("\n| kind | address | browser | ours | left because |\n|---|---|---|---|---|")
    for place, case in enumerate(listed):
        if found["browser"][place] != found["ours"][place]:
            shown = "shown" if found["browser"][place] else "whole" if found["whole"][place] else ""
            told = found["told"][place][:80].replace("|", "/")
            print(f"| {case.kind} | {case.name} | {shown} | {told} | {case.refused} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--arms", default=",".join(ARMS))
    options.add_argument("--img2dataset", default="", metavar="PYTHON", help="of its environment")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--list", action="store_true", help="what ours says of every address")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    arms = given.arms.split(",")
    if unknown := {*arms} - {*ARMS}:
        options.error(f"no arm is called {', '.join(sorted(unknown))}")
    if "img2dataset" in arms and not given.img2dataset:
        arms.remove("img2dataset")
        print("!! img2dataset is LEFT OUT: it needs --img2dataset PYTHON (see crawl_speed)")
    if "browser" in arms and not (CHROMIUM.exists() and DRIVER.exists()):
        arms.remove("browser")
        print(f"!! the browser is LEFT OUT: {CHROMIUM} and {DRIVER} are not both there")
    listed, found = measured(arms, given.seed, given.img2dataset)
    versions = ", ".join(f"{name} {version(name)}" for name in ("icrawler", "aiohttp", "pillow"))
    print(f"seed {given.seed}, {versions}\n")
    table(listed, found, arms)
    if {"browser", "ours"} <= {*arms}:
        differences(listed, found)
    if given.list:
        for case, told in zip(listed, found.get("told", []), strict=False):
            print(f"{case.kind}: {case.name}: {told}")
    if given.json:
        rows = [{"kind": case.kind, "name": case.name, "url": case.url} for case in listed]
        given.json.write_text(json.dumps({"cases": rows, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
