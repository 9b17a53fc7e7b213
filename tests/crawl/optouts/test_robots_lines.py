"""Conformance: what robots.txt says, and what is nearly that."""

import time

import pytest

from kd3_pipeline.crawl.optouts.signals import ALL_KINDS
from kd3_pipeline.crawl.robots import MAX_BYTES, rules_of
from tests.crawl.optouts.judging import ALL, OURS, judged

REFUSED = [  # robots.txt
    (ALL + "Content-Signal: ai-train=no", "content-signal"),
    (ALL + "Content-Signal: search=yes,ai-train=no,use=reference\nAllow: /", "content-signal"),
    (ALL + "Content-signal: search=yes; AI-Train = NO", "content-signal"),
    (ALL + "  content-signal :\tsearch=yes , ai-train=no # all of it", "content-signal"),
    (ALL + "Content-Signal: /img/ ai-train=no", "content-signal"),
    (ALL + "Content-Signal: *.jpg$ ai-train=no", "content-signal"),
    (ALL + "Content-Signal: ai-train=yes\nContent-Signal: /img/ ai-train=no", "content-signal"),
    (ALL + "Content-Signal: ai-train=yes\nContent-Signal: ai-train=no", "content-signal"),
    ("\ufeff" + ALL + "Content-Signal: ai-train=no\r\n", "content-signal"),
    (
        OURS + "Content-Signal: ai-train=no\n" + ALL + "Content-Signal: ai-train=yes",
        "content-signal",
    ),
    ("User-agent: x\n" + ALL + "Content-Signal: ai-train=no", "content-signal"),
    (
        "User-agent: x\nAllow: /\n\n" + ALL + "\n# us too\nContent-Signal: ai-train=no",
        "content-signal",
    ),
    (ALL + "Allow: /\nSitemap: http://0.test/s.xml\nContent-Signal: ai-train=no", "content-signal"),
    ("Content-Signal: ai-train=no", "content-signal"),  # before any user agent
    ("User-agent: KD3-Pipeline/2.0\nContent-Signal: ai-train=no", "content-signal"),
    (ALL + "Content-Usage: train-ai=n", "content-usage"),
    (ALL + "CONTENT-USAGE:train-ai=n", "content-usage"),
    (
        ALL + 'Content-Usage: search=y, train-ai=n;x=1, other=(a b), s="t, train-ai=y"',
        "content-usage",
    ),
    (ALL + "Content-Usage: /img/ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: /img\ttrain-ai=n", "content-usage"),
    (ALL + "Content-Usage: /*.jpg$ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: train-ai=y\nContent-Usage: /img/ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: /img/ train-ai=n\nContent-Usage: /img/ train-ai=y", "content-usage"),
    (ALL + "Content-Usage: /%69mg/ train-ai=n", "content-usage"),
    (ALL + "Content-Usage: train-ai=y, train-ai=n", "content-usage"),  # the last one counts
    (OURS + "Content-Usage: train-ai=n\n\n" + ALL + "Content-Usage: train-ai=y", "content-usage"),
]


@pytest.mark.parametrize(("text", "kind"), REFUSED)
def test_robots_txt_forbids(text, kind):
    found, _ = judged(text)
    assert found.refusal.startswith(f"{kind}: robots.txt: ")
    assert f"{found.refusal} (prohibits)" in found.text.splitlines()
    assert judged(text, opt_outs=[one for one in ALL_KINDS if one != kind])[0].refusal == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        ALL + "Content-Signal: ai-train=yes",
        ALL + "Content-Signal: search=no, ai-input=no",
        ALL + "Content-Signal: use=reference",
        ALL + "Content-Signal: ai-train=",
        ALL + "Content-Signal: ai-training=no, not-ai-train=no",
        ALL + "Content-Signal: /other/ ai-train=no",
        ALL + "Content-Signal: ai-train=no\nContent-Signal: /img/ ai-train=yes",
        ALL + "# Content-Signal: ai-train=no",
        ALL + "Content-Signal # : ai-train=no",
        ALL + "Content-Signals: ai-train=no",
        "User-agent: other\nContent-Signal: ai-train=no",
        "User-agent: kd3\nContent-Signal: ai-train=no",
        "User-agent: other\nContent-Signal: ai-train=no\n" + ALL + "Allow: /",
        OURS + "Content-Signal: ai-train=yes\n" + ALL + "Content-Signal: ai-train=no",
        OURS + "Allow: /\n" + ALL + "Content-Signal: ai-train=no",
        ALL + "Content-Usage: train-ai=y",
        ALL + "Content-Usage: search=n, train-genai=n",
        ALL + "Content-Usage: ai-train=no",
        ALL + "Content-Usage: train-ai=no",
        ALL + "Content-Usage: train-ai",
        ALL + 'Content-Usage: train-ai="n"',
        ALL + "Content-Usage: train-ai=?0",
        ALL + "Content-Usage: train-ai=N",
        ALL + "Content-Usage: train-ai = n",  # no structured field
        ALL + "Content-Usage: Train-AI=n",
        ALL + "Content-Usage: train-ai=n,",
        ALL + "Content-Usage: train-ai=n, train-ai=y",
        ALL + 'Content-Usage: x="train-ai=n"',
        ALL + "Content-Usage: /IMG/ train-ai=n",
        ALL + "Content-Usage: /img/$ train-ai=n",
        ALL + "Content-Usage: /*.jpeg train-ai=n",
        ALL + "Content-Usage: train-ai=n\nContent-Usage: /img/a train-ai=y",
        ALL + "Content-Usage: train-ai=n\nContent-Usage: /img/ search=y",  # the longest alone
        "User-agent: other\nContent-Usage: train-ai=n",
        "<html><body>Content-Signal: ai-train=no</body></html>",
        "Licence: http://0.test/l.xml\nUser-agent: GPTBot\nDisallow: /",
    ],
)
def test_robots_txt_that_only_looks_like_it_forbids_nothing(text):
    assert judged(text)[0].refusal == ""


AGENTS = [
    ("User-agent: GPTBot\nDisallow: /", True),
    ("User-agent: gptbot/1.0\nDisallow: /img", True),
    ("User-agent: x\nUser-agent: CCBot\nUser-agent: y\nDisallow: /*.jpg$", True),
    ("User-agent: CCBot\nDisallow: /\n\nUser-agent: GPTBot\nAllow: /", True),
    ("User-agent: img2dataset\nAllow: /\nDisallow: /img/", True),
    ("User-agent: GPTBot\nAllow: /x\n\nUser-agent: GPTBot\nDisallow: /img/", True),
    ("User-agent: GPTBot\nDisallow: /other/", False),
    ("User-agent: GPTBot\nDisallow:", False),
    ("User-agent: GPTBot\nDisallow: /\nAllow: /img/", False),
    ("User-agent: Googlebot\nDisallow: /", False),
    ("User-agent: ChatGPT-User\nDisallow: /", False),  # fetches for a person, trains nothing
    ("User-agent: GPTBots\nDisallow: /", False),
    ("# User-agent: GPTBot\n# Disallow: /", False),
    ("User-agent: GPTBot\nContent-Signal: ai-train=no", False),
]


@pytest.mark.parametrize(("text", "closed"), AGENTS)
def test_ai_crawlers_that_are_shut_out_by_name_close_a_site_if_wanted(text, closed):
    found, _ = judged(text, ai_agents=True, opt_outs="none")
    assert found.refusal.startswith("ai-agents: robots.txt: disallows") is closed
    assert judged(text)[0].refusal == ""


@pytest.mark.parametrize(
    "line",
    [
        "User-agent: {n}\nContent-Usage: /{n} train-ai=n\n",
        "Content-Usage: /*a*a*a*{n}b$ train-ai=n\n",
        "Content-Signal: /{n} ai-train=no;;;;;;;,,,,,\n",
        "User-agent: GPTBot\nDisallow: /{n}*a\n",
        "User-agent: GPTBot\nUser-agent: *\nDisallow: /{n}\nContent-Usage: a{n}\n",
        "License: http://0.test/{n}\n",
        "Content-Usage: " + "a;b;c, " * 500 + "\n",
        "Content-Usage: " + '"' * 3000 + "\n",
    ],
)  # fmt: skip
def test_half_a_megabyte_of_lines_takes_no_time(line):
    text = "User-agent: *\n" + "".join(line.format(n=n) for n in range(MAX_BYTES // len(line)))
    start = time.process_time()
    rules = rules_of(text.encode())
    for _ in range(3):
        rules.declared.signals("/" + "a" * 2000 + ".jpg")
    assert time.process_time() - start < 4
