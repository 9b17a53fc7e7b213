"""What a person is told: which outcomes may be tried again, what helps, and who is to blame."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kd3_pipeline.crawl.backlog import FOR_NOW
from kd3_pipeline.crawl.outcomes import NEVER_ASKED, REMEDIES, remedy, retried
from kd3_pipeline.errors import UserError
from tests.crawl.hosts import Host, image, serving

ROOT = Path(__file__).parents[2]
FAILURE = re.compile(r"(?:Failure|ImageError|Fetched)\(\s*(?:job\.url, )?\"([a-z_]+)\"")


def test_outcomes_and_statuses_are_read_with_commas_and_spaces():
    assert retried("") == frozenset()
    assert retried(" 404, 5xx,truncated ,, not_now") == {"404", "5xx", "truncated", "not_now"}
    assert retried("forgotten") == {"forgotten"}  # its own page says so


@pytest.mark.parametrize("word", ["bogus", "40", "4040", "xx", "0xx", "stored", "ok", "Truncated"])
def test_what_is_no_outcome_is_refused_with_those_that_are(word):
    with pytest.raises(UserError, match=f"'{word}' is no outcome: .*5xx.* truncated"):
        retried(f"404,{word}")


@pytest.mark.parametrize("word", NEVER_ASKED)
def test_what_asking_again_does_not_help_is_refused_with_what_helps(word):
    with pytest.raises(UserError, match=f"{word}: asking again does not help: ") as caught:
        retried(word)
    assert remedy(word) in str(caught.value)


def test_every_outcome_of_a_download_has_a_remedy():
    files = [*(ROOT / "pipeline/crawl").glob("*.py"), ROOT / "pipeline/images.py"]
    named = {word for path in files for word in FAILURE.findall(path.read_text("utf-8"))}
    assert {"truncated", "too_small", "robots", "certificate", "tls"} <= named
    assert named - FOR_NOW - {"ok"} <= REMEDIES.keys()


def test_no_remedy_sends_anybody_to_try_again_what_that_cannot_change():
    for outcome in (*NEVER_ASKED, "robots", "opted_out", "too_small", "too_large", "damaged"):
        assert "--retry-failed" not in remedy(outcome)
    assert remedy("http_error").endswith("`pipeline crawl --retry-failed http_error`")
    assert "crawl.min_side" in remedy("too_small")
    assert remedy("of_tomorrow").endswith("--retry-failed of_tomorrow`")


PROGRAM = """
import json, resource, sys
from pathlib import Path
from kd3_pipeline.errors import PipelineError
from tests.crawl.hosts import candidates_of, crawl

told = json.load(sys.stdin)
import PIL.JpegImagePlugin
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
try:
    crawl(Path(told["folder"]), candidates_of(told["urls"]), told["hosts"], robots=False)
except PipelineError as error:
    print(error.exit_code, error)
"""


def test_too_many_open_files_are_told_as_such(tmp_path):
    """A connection is a file: neither the hosts nor the network are to blame."""
    host = Host()
    host.otherwise = image(0, seconds=0.3)
    with serving(host) as hosts:
        table = {f"h{n}.test": hosts["0.test"] for n in range(100)}
        urls = [f"http://{name}/a.jpg" for name in table]
        told = {"folder": str(tmp_path), "hosts": table, "urls": urls}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(told),
            text=True,
            capture_output=True,
            cwd=ROOT,
            timeout=60,
        )
    said = "3 too many open files: this process may have 40 at once: `ulimit -n 1024`"
    assert done.stdout.startswith(said), done.stderr
