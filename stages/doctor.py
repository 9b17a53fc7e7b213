"""`pipeline doctor`: is everything here that the pipeline needs, and does an engine answer?"""

import importlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from pipeline.console import Console
from pipeline.errors import PipelineError, UserError, WorldError
from pipeline.paramfile import read_params
from stages import paths
from stages.command import Json, Quiet

LIBRARIES = ("torch", "faiss", "dvc", "icrawler")
LEAST_SPACE = 1.0  # GB free; a crawl of 40,000 images and its models need about as much
FEW = 3  # addresses shown


def doctor(
    engine: Annotated[
        str | None, typer.Option(help="Ask this search engine for one page: bing, commons, …")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="What to ask the engine for; else the first class's query.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check this environment, or what a search engine answers."""
    console = Console(quiet=quiet, as_json=as_json)
    if engine is not None:
        _engine(engine, query, console)
        return
    if query is not None:
        raise UserError("doctor: --query needs --engine")
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        *((name, lambda name=name: _version(name)) for name in LIBRARIES),
        ("device", _device),
        ("disk", _disk),
        ("git", lambda: _tool(["git", "rev-parse", "--show-toplevel"], "git init")),
        ("dvc project", lambda: _tool([sys.executable, "-m", "dvc", "root"], "dvc init")),
        (str(paths.PARAMS), _params),
    ]
    rows = [(name, *_outcome(check)) for name, check in checks]
    lines = [f"{'wrong' if code else 'ok':5}  {name}: {text}" for name, text, code in rows]
    found = {name: {"ok": not code, "text": text} for name, text, code in rows}
    console.result("\n".join(lines), {"checks": found})
    worst = max(code for _, _, code in rows)
    if worst:
        raise typer.Exit(worst)


def _outcome(check: Callable[[], str]) -> tuple[str, int]:
    """What a check found, and the exit code that it asks for."""
    try:
        return check(), 0
    except PipelineError as error:
        return "; ".join(str(error).splitlines()), error.exit_code


def _version(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(str(error), "pip install -e . -c constraints.txt") from None
    return str(getattr(module, "__version__", None) or metadata.version(name))


def _device() -> str:
    import torch

    from pipeline.device import resolve_device

    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return f"{device.type} {name}".strip()


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < LEAST_SPACE:
        raise WorldError(f"{free:.1f} GB free", f"the pipeline needs {LEAST_SPACE:g} GB")
    return f"{free:,.0f} GB free"


def _tool(command: list[str], remedy: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]} cannot be run: {error}", "install it") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(said, f"`{remedy}` makes one here")
    return done.stdout.strip()


def _params() -> str:
    read_params(paths.PARAMS)
    return "valid"


def _engine(name: str, query: str | None, console: Console) -> None:
    from pipeline.classes import load_classes
    from pipeline.crawl.engines.engine import Unreadable
    from pipeline.crawl.pages import PageError, ask, hidden, keep_page
    from pipeline.crawl.session import guarded_session
    from stages.engines import SEARCH_ENGINES, engine_for, user_agent

    if name not in SEARCH_ENGINES:
        raise UserError(
            f"doctor: no search engine named '{name}'", f"known: {', '.join(SEARCH_ENGINES)}"
        )
    section = read_params(paths.PARAMS).crawl.model_copy(update={"engine": name})
    classes = load_classes(section.classes)
    query = query or classes.classes[0].queries[0]
    with engine_for(section, classes, console) as (engine, hosts):
        address = next(engine.pages(query, 1, section.licence))
        with guarded_session(user_agent(section.contact), hosts) as session:
            try:
                page = ask(engine, address, session)
            except PageError as error:
                raise WorldError(
                    f"{name}: {engine.host}: {error}", "check the network, or take another engine"
                ) from None
        said = f"{name}: '{query}': HTTP {page.status}, {len(page.body):,} bytes"
        try:
            if page.status != 200:
                raise Unreadable("it is no page of results")
            results = engine.results(page.body)
            if not results:
                raise Unreadable("it has no results")
        except Unreadable as error:
            kept = keep_page(engine, page.body, paths.CACHE / "crawl")
            raise WorldError(
                f"{said}: {hidden(engine, str(error))}; kept as {kept}",
                "open it to see why (a captcha, a consent page, a new layout); wait, try another"
                " --query, or take another engine (crawl.engine)",
            ) from None
    licences = sorted({result.licence for result in results if result.licence})
    urls = [result.url for result in results[:FEW]]
    lines = [
        f"{said}, {len(results)} results",
        *(f"  {url}" for url in urls),
        f"  licences: {', '.join(licences) or 'none told'}",
    ]
    console.result(
        "\n".join(lines),
        {
            "engine": name,
            "query": query,
            "address": address,
            "status": page.status,
            "bytes": len(page.body),
            "results": len(results),
            "urls": urls,
            "licences": licences,
        },
    )
