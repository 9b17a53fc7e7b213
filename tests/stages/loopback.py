"""The command line of a copy of the project, whose search engines and hosts are on loopback."""

import json
import subprocess
import sys
from pathlib import Path

from kd3_pipeline.crawl.guard import HostTable
from tests.stages.workspace import environment

# no parameter leads to a loopback address: this puts the names into the place of the demo's
PROGRAM = """
import contextlib, json, sys
from kd3_pipeline.crawl.engines.bing import Bing
from kd3_stages import sources

hosts = {name: (ip, port) for name, (ip, port) in json.loads(sys.argv.pop(1)).items()}
Bing.__init__.__defaults__ = ("bing", "http://0.test/images/async", 0.0)
real = sources.engine_for

@contextlib.contextmanager
def engine_for(*arguments):
    with real(*arguments) as (engine, _):
        yield engine, hosts

sources.engine_for = engine_for
from kd3_stages.cli import main
main()
"""


def pipeline(folder: Path, hosts: HostTable, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `pipeline` with these arguments; `hosts` are the names that it can resolve."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(hosts), *arguments],
        cwd=folder,
        env=environment(folder),
        text=True,
        capture_output=True,
        timeout=60,
    )
