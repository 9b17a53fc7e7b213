"""What DVC shows of a project: a dozen figures, plots without a network, a graph that fits."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kd3_stages import paths
from kd3_stages.steps.init import TEMPLATES
from tests.browser import browser as browser
from tests.imports import ROOT
from tests.stages.workspace import fresh_copy, invoke, run

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
ROOM = 80  # columns of a terminal
NETWORK = re.compile(r"""(src|href)\s*=|@import|fetch\(|cdn|url\(""")
DRAWN = """
return [...document.querySelectorAll('body > div')].map(div => [
  div.querySelector('h2').textContent, div.querySelectorAll('svg').length,
  div.querySelectorAll('.curve').length, div.querySelectorAll('.cell').length])
"""
REQUESTS = "return performance.getEntriesByType('resource').map(entry => entry.name)"


def test_one_small_file_is_what_dvc_calls_metrics_and_the_rest_is_tracked_in_git() -> None:
    stages = PIPELINE["stages"].values()
    metrics = [next(iter(one)) for stage in stages for one in stage.get("metrics", [])]
    assert metrics == [paths.FIGURES.as_posix()]
    assert not [stage for stage in stages if "plots" in stage], "one plot a column of each file"
    small = {
        path: how
        for stage in stages
        for one in stage.get("outs", [])
        if isinstance(one, dict)
        for path, how in one.items()
    }
    assert {"reports/metrics.json", "reports/crawl.json", "reports/distill.csv"} <= set(small)
    assert all(how == {"cache": False} for how in small.values())


def test_the_table_of_experiments_begins_with_the_figures(project: Path) -> None:
    table = run(project, "dvc", "exp", "show", "--csv").stdout.splitlines()
    figures = list(json.loads((project / paths.FIGURES).read_text()))
    names = table[0].split(",")
    start = names.index("accuracy")
    assert start == names.index("parent") + 1, "nothing but the experiment stands before"
    assert names[start : start + len(figures)] == figures
    assert names[start + len(figures)].startswith("crawl.")


def test_metrics_are_compared_with_the_last_commit(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    assert run(folder, "dvc", "metrics", "diff").stdout == ""
    found = json.loads((folder / paths.FIGURES).read_text())
    shown = json.loads(run(folder, "dvc", "metrics", "show", "--json").stdout)
    assert shown[""]["data"][paths.FIGURES.as_posix()]["data"] == found
    found["accuracy"] += 0.25
    (folder / paths.FIGURES).write_text(json.dumps(found))
    said = run(folder, "dvc", "metrics", "diff").stdout
    assert re.search(r"accuracy +\S+ +\S+ +0\.25", said) and "macs" not in said
    run(folder, "git", "add", "params.yaml", "dvc.lock", "inputs.lock", "reports")
    run(folder, "git", "commit", "-m", "First run")
    assert run(folder, "dvc", "metrics", "diff").stdout == ""


def test_the_graph_has_a_form_that_fits_a_terminal(project: Path) -> None:
    lines = run(project, "dvc", "dag", "--mermaid").stdout.splitlines()
    assert max(map(len, lines)) < ROOM
    assert {stage for stage in PIPELINE["stages"] if f'"{stage}"' in "".join(lines)} == set(
        PIPELINE["stages"]
    )


def test_the_graph_without_arrows_that_follow_from_others_is_narrow(tmp_path: Path) -> None:
    invoke(tmp_path, "init", ".")
    drawn = invoke(tmp_path, "dag").stdout.splitlines()
    assert max(map(len, drawn)) < ROOM // 2
    assert all(any(f"| {stage} |" in line for line in drawn) for stage in PIPELINE["stages"])
    waits = json.loads(invoke(tmp_path, "dag", "--json").stdout)["waits_for"]
    assert waits["report"] == ["evaluate"] and waits["embed"] == ["dedup", "teacher"]
    assert waits["crawl"] == waits["teacher"] == ["inputs"] and waits["inputs"] == []


# plots


def test_every_plot_has_a_template_that_the_page_draws() -> None:
    page = (TEMPLATES / "plots/page.html").read_text()
    for plot in PIPELINE["plots"]:
        (about,) = plot.values()
        text = (TEMPLATES / f"plots/{about['template']}.json").read_text()
        assert f"function {json.loads(text)['usermeta']['draw']}(" in page
    assert not NETWORK.search(page)
    assert "default-src 'none'" in page


def test_plots_are_a_page_without_a_script_from_elsewhere(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    run(folder, "dvc", "plots", "show", "-o", "plots")
    page = (folder / "plots/index.html").read_text()
    assert not NETWORK.search(page)
    assert page.count("vegaEmbed('#") == len(PIPELINE["plots"])


@pytest.mark.browser
def test_curves_and_matrices_are_drawn_offline(project: Path, tmp_path: Path, browser: Any) -> None:
    folder = fresh_copy(project, tmp_path)
    with (folder / "dvc.yaml").open("a") as file:
        file.write("  - other: {x: epoch, y: {reports/distill.csv: [lr]}}\n")
    curves = (folder / paths.CURVES).read_text().splitlines()
    (folder / paths.CURVES).write_text("\n".join([*curves, curves[-1].replace("2,", "3,", 1)]))
    run(folder, "dvc", "plots", "diff", "HEAD", "-o", "plots")
    browser.get_log("browser")
    browser.get((folder / "plots/index.html").as_uri())
    time.sleep(0.2)
    drawn = {
        title: (svgs, lines, cells) for title, svgs, lines, cells in browser.execute_script(DRAWN)
    }
    assert browser.execute_script(REQUESTS) == []
    assert browser.get_log("browser") == []
    two = {"HEAD": 1, "workspace": 1}
    assert drawn["loss"] == (1, 2 * len(two), 0), "a line and its key a revision"
    assert drawn["kept"] == (1, 2 * 2 * len(two), 0)
    for name in ("coverage", "confusion"):
        svgs, _, cells = drawn[name]
        assert svgs >= 1 and cells > 5
    other = browser.find_element("xpath", "//div[h2='other']").text
    assert "Not drawn" in other and "plots.html_template" in other
