"""This crawler beside icrawler, img2dataset and a bare HTTP client, in one run, on loopback.

    python -m benchmarks.crawl_speed --img2dataset /tmp/i2d/bin/python
    python -m benchmarks.crawl_speed --quick --arms ours,bare,icrawler
    python -m benchmarks.crawl_speed --before ../checkout-of-another-version

Every arm runs in a fresh process, arms take turns --repeats times, and medians are shown; a ratio
is the median of the rounds' ratios. A rate is active: from the first request for an image to the
last image sent, by the server's clock; what is in socket buffers then, up to an image for each
connection, counts as sent. Start-up and tail are the rest of the wall clock. CPU time is user and
system of all of an arm's processes, less that of a run with a single image. Saved images are
compared with what was served, byte for byte.

Ours runs without its politeness (64 connections a host, no gap), or that would be measured; a
table of its own has the defaults. It does all that `pipeline crawl` does: robots.txt, checks,
journal, shards. icrawler and img2dataset have 64 threads, img2dataset one process, no resizing,
and leave to keep the bytes of a JPEG once it is decoded (skip_reencode). It needs an environment
of its own:

    python3 -m venv --without-pip /tmp/i2d
    python3 -m pip --python /tmp/i2d/bin/python install img2dataset
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.crawl_arms import ARMS, SEARCHING, img2dataset
from benchmarks.crawl_web import SEARCH, Web, image, image_url, serving
from kd3_pipeline.store import read_shard

BEFORE = "before"  # ours, of another version
CHILD_TIMEOUT = 600.0  # seconds
BAD = ["/big", "/big", "/bomb.png", "/big", "/big"]
TITLES = {
    "A": "{classes} classes × {per_class} images, HTTP, 100 ms latency; faster by the wall clock",
    "politeness": "ours by default (2 connections a host, 0.5 s between requests), 8 hosts, 100 ms",
    "B": "HTTPS, {half:,} images, no latency; faster by the active rate",
    "C": "HTTP, {images:,} images, no latency; faster by the active rate",
    "hostile": "{few:,} good images among 4 endless bodies and a 400-megapixel PNG",
    "queue": "{queue:,} candidates, stopped after {few:,}",
}
FORMS = {"wall": ".1f", "rate": ",.0f", "fixed": ".1f", "cpu_ms": ".1f", "peak_mb": ",.0f"}
Run = dict[str, Any]
Goal = tuple[str, float | None, str, float]  # what, its value if measured, relation, bound


class Bench:
    """The scenarios, against one running server. `runs` are by scenario and arm."""

    def __init__(self, given: argparse.Namespace, arms: Sequence[str], web: Web) -> None:
        self.given, self.arms, self.web = given, arms, web
        self.runs: dict[str, dict[str, list[Run]]] = {}

    def rounds(self, scenario: str, arms: Sequence[str], images: int, **job: Any) -> None:
        """Every arm once, then every arm again; B and C also with one image, for the CPU time."""
        arms = [arm for arm in arms if arm in self.arms]
        once = scenario in ("politeness", "queue")  # these take long, and vary little
        for _ in range(1 if once else self.given.repeats):
            for arm in arms:
                found = self.run(scenario, arm, images, **job)
                if scenario in ("B", "C"):
                    single = self.run(scenario, arm, 1, **job)["cpu"]
                    found["cpu_ms"] = (found["cpu"] - single) / (images - 1) * 1000
                self.runs.setdefault(scenario, {}).setdefault(arm, []).append(found)

    def run(
        self,
        scenario: str,
        arm: str,
        images: int,
        *,
        classes: int = 1,
        tls: bool = False,
        latency: float = 0.0,
        bad: Sequence[str] = (),
        **job: Any,
    ) -> Run:
        """One arm in a fresh process; `bad` paths are asked for among the good images."""
        per_class = images // classes
        urls = [(number // per_class, image_url(number, tls)) for number in range(images)]
        for place, path in enumerate(bad):
            urls.insert(2 * place, (0, f"http://{place}.bench.test{path}"))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "out").mkdir()
            job = {"polite": False, "stop_after": 0, "per_class": per_class} | job
            job |= {"folder": folder, "classes": classes, "urls": urls, "hosts": self.web.hosts()}
            job |= {"addresses": [(label, self.web.address(url)) for label, url in urls]}
            job |= {"trusted": str(self.web.trusted), "search": SEARCH if arm == SEARCHING else ""}
            self.web.reset(latency, per_class)
            found = self.measured(arm, job) | {"images": images}
            if not job["stop_after"]:
                found["saved"] = self.saved(Path(folder, "out"), images)
        print(f"  {scenario}, {arm}, {images:,} images: {found['wall']:.1f} s", file=sys.stderr)
        return found

    def measured(self, arm: str, job: Run) -> Run:
        """Seconds by the wall, of idleness at the ends and of all CPUs; rates; peak memory."""
        Path(job["folder"], "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "benchmarks.crawl_arms", arm, job["folder"]]
        tree = None  # of this version: where the benchmark runs
        if arm == "img2dataset":
            command = img2dataset(job, self.given.img2dataset)
        if arm == BEFORE:
            command[3], tree = "ours", self.given.before
        # no proxies, and no look for news before the work
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        clean |= {"SSL_CERT_FILE": job["trusted"], "REQUESTS_CA_BUNDLE": job["trusted"]}
        clean |= {"NO_ALBUMENTATIONS_UPDATE": "1"} | ({"PYTHONPATH": str(tree)} if tree else {})
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, cwd=tree, env=clean, timeout=CHILD_TIMEOUT
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{arm} failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
        stats = self.web.stats()
        peak = {} if arm == "img2dataset" else json.loads(done.stdout.splitlines()[-1])
        return peak | {
            "wall": wall,
            "fixed": wall - stats["seconds"],
            "rate": stats["images"] / max(stats["seconds"], 1e-9),
            "server_rate": stats["images"] / max(stats["cpu"], 1e-9),
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        }

    def saved(self, folder: Path, images: int) -> int:
        """How many of the images are there, as files or in our shards."""
        there = set()
        for path in folder.rglob("*"):
            if path.name.startswith("images-"):
                there |= {hashlib.sha256(stored.data).digest() for stored in read_shard(path)}
            elif path.is_file():
                there.add(hashlib.sha256(path.read_bytes()).digest())
        served = (image(self.given.seed, number) for number in range(images))
        return len(there & {hashlib.sha256(data).digest() for data in served})

    def middle(self, scenario: str, key: str, arm: str = "ours") -> float | None:
        """The median of the runs, if there are any."""
        values = [run[key] for run in self.runs.get(scenario, {}).get(arm, []) if key in run]
        return statistics.median(values) if values else None

    def ratio(self, scenario: str, arm: str, mine: str = "ours") -> float | None:
        """How many times faster ours is: by the wall clock in A, by the active rate elsewhere."""
        runs = self.runs.get(scenario, {})
        ratios = [
            other["wall"] / own["wall"] if scenario == "A" else own["rate"] / other["rate"]
            for own, other in zip(runs.get(mine, []), runs.get(arm, []), strict=False)
        ]
        return statistics.median(ratios) if ratios else None

    def goals(self, few: int) -> list[Goal]:
        """What is wanted of ours; `few` is the number of good images among the bad ones."""
        wall = [
            (f"A: wall clock, {arm} / {mine}", self.ratio("A", arm, mine), "≥", 5)
            for arm in ("icrawler", "img2dataset")
            for mine in ("ours", SEARCHING)
        ]
        return [
            *wall,
            ("B: active rate, ours / img2dataset", self.ratio("B", "img2dataset"), "≥", 5),
            ("C: active rate, ours / icrawler", self.ratio("C", "icrawler"), "≥", 0.8),
            ("C: active rate, ours / bare", self.ratio("C", "bare"), "≥", 0.6),
            ("C: CPU ms an image of ours, start-up excluded", self.middle("C", "cpu_ms"), "≤", 4),
            ("D: start-up and tail of ours in C (s)", self.middle("C", "fixed"), "≤", 2),
            ("E: peak MB among hostile bodies", self.middle("hostile", "peak_mb"), "≤", 300),
            ("E: images saved among them", self.middle("hostile", "saved"), "≥", few),
            ("E: peak MB with the long queue", self.middle("queue", "peak_mb"), "≤", 500),
        ]

    def show(self, scenario: str, title: str) -> None:
        """One scenario as a table."""
        print(f"\n**{scenario}**: {title}\n")
        print("| arm | wall s | active images/s | start-up and tail s | CPU ms an image | ", end="")
        print("peak MB | saved | ours is faster |\n|---|---|---|---|---|---|---|---|")
        for arm, runs in self.runs[scenario].items():
            middles = [(self.middle(scenario, key, arm), form) for key, form in FORMS.items()]
            cells = ["" if value is None else f"{value:{form}}" for value, form in middles]
            saved = min(run.get("saved", -1) for run in runs)
            short = 0 <= saved < runs[0]["images"]
            cells.append("" if saved < 0 else f"**only {saved:,}**" if short else f"{saved:,}")
            ratio = self.ratio(scenario, arm) if arm != "ours" else None
            cells.append("" if ratio is None else f"{ratio:.2f}×")
            print(f"| {arm} | {' | '.join(cells)} |")
        if scenario in ("B", "C"):
            every = [run["server_rate"] for runs in self.runs[scenario].values() for run in runs]
            print(f"\nThe server's CPU time would do for {min(every):,.0f} images/s or more.")


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """Where this ran, on what, and how."""
    from benchmarks.limits import processor  # it takes PyTorch along, which no arm needs

    found: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count()}
    found["python"] = sys.version.split()[0]
    found |= {name: version(name) for name in ("icrawler", "aiohttp", "pillow")}
    if given.img2dataset:
        code = "from importlib.metadata import version; print(version('img2dataset'))"
        try:
            asked = subprocess.check_output([given.img2dataset, "-c", code], text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"--img2dataset: {error}") from None
        found["img2dataset"] = asked.strip()
    return found | {"seed": given.seed, "repeats": given.repeats}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=1200, help="of C; B has half of them")
    options.add_argument("--classes", type=int, default=10, help="of A")
    options.add_argument("--per-class", type=int, default=100, help="images of A")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="tiny: does it run at all?")
    options.add_argument("--scenarios", default="ABCE")
    options.add_argument("--arms", default="ours,icrawler,img2dataset,bare")
    options.add_argument("--img2dataset", default="", metavar="PYTHON", help="of its environment")
    options.add_argument("--before", type=Path, metavar="TREE", help="a checkout to compare with")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    given.few, given.queue = (10, 2000) if given.quick else (100, 100_000)
    if given.quick:
        given.images, given.classes, given.per_class, given.repeats = 10, 2, 5, 1
    arms = given.arms.split(",")
    if unknown := {*arms} - {*ARMS, "img2dataset"}:
        options.error(f"no arm is called {', '.join(sorted(unknown))}")
    if given.before:
        given.before = given.before.resolve(strict=True)
        arms.append(BEFORE)
    if "ours" in arms:
        arms.append(SEARCHING)
    if "img2dataset" in arms and not given.img2dataset:
        arms.remove("img2dataset")
        how = __doc__.rpartition("own:\n\n")[2]
        print(f"!! img2dataset is LEFT OUT: it needs --img2dataset PYTHON, made by\n{how}")
    if not arms:
        return
    facts = machine(given)
    with tempfile.TemporaryDirectory() as folder, serving(given.seed, Path(folder)) as web:
        bench = Bench(given, arms, web)
        fetching = ["ours", BEFORE, "icrawler", "img2dataset", "bare"]
        if "A" in given.scenarios:
            images = given.classes * given.per_class
            everyone = [*fetching, SEARCHING]
            bench.rounds("A", everyone, images, classes=given.classes, latency=0.1)
            bench.rounds("politeness", ["ours", BEFORE], min(images, 160), latency=0.1, polite=True)
        if "B" in given.scenarios:
            bench.rounds("B", fetching, given.images // 2, tls=True)
        if "C" in given.scenarios:
            bench.rounds("C", fetching, given.images)
        if "E" in given.scenarios:
            wanted = given.few + len(BAD)
            bench.rounds("hostile", ["ours", BEFORE], given.few, bad=BAD, per_class=wanted)
            bench.rounds("queue", ["ours"], given.queue, stop_after=given.few)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if given.quick:
        print("--quick: far too small for its figures to mean anything")
    titles = vars(given) | {"half": given.images // 2}
    for scenario in bench.runs:
        bench.show(scenario, TITLES[scenario].format(**titles))
    print("\n| goal | bound | measured | |\n|---|---|---|---|")
    goals = bench.goals(given.few)
    for name, value, relation, bound in goals:
        met = value is not None and (value >= bound if relation == "≥" else value <= bound)
        word = "not measured" if value is None else "met" if met else "**missed**"
        print(
            f"| {name} | {relation} {bound} | {'' if value is None else f'{value:.2f}'} | {word} |"
        )
    if given.json:
        found = {"machine": facts, "settings": vars(given), "runs": bench.runs, "goals": goals}
        given.json.write_text(json.dumps(found, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
