"""Class names, titles and parameters that are markup, in every place of the page, in a browser."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kd3_pipeline.report.identity import Identity, Parameter
from kd3_pipeline.report.page import build_report
from tests.browser import assert_sound
from tests.report.world import World

pytestmark = pytest.mark.browser

SCRIPTS = """
return [typeof window.ran, document.scripts.length, document.querySelectorAll(
  'iframe, object, embed, link:not([href^="data:"]), base, meta[http-equiv=refresh],'
  + 'form, img:not([src^="data:"])'
).length, [...document.querySelectorAll('*')].flatMap(
  e => [...e.attributes].filter(a => a.name.startsWith('on')).map(a => a.name))];
"""


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A host on loopback, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def hostile(host: str) -> list[str]:
    return [
        f"</bdi></style><style>*{{background:url(//{host}/style)}}</style>",
        f"\"' onmouseover='ran=1' style='background:url(http://{host}/attribute)' x='",
        f"*/ }} body {{ background: url(http://{host}/css) }} /*",
        f"</title></svg><svg><image href='http://{host}/svg' onload='ran=1'/>",
        f"--></table><base href='//{host}/'><meta http-equiv=refresh content='0;//{host}/go'>",
        "\\27); content: url(x); \\a '\n\t\x00\x1b[31m",
        "\u202e\u2066right to left\u0007 {{ 7 * 7 }} {% raise %} %s %(x)s &lt;b&gt; ]]>",
        "e\u0301" * 40 + "\u200b\ufeff" + "x" * 4000,
        f"<img src=http://{host}/image onerror=ran=1><iframe src=//{host}/frame>",
        "👩‍👩‍👧" * 30,
    ]


@pytest.mark.parametrize("width", [390, 1440])
def test_markup_in_names_is_text_and_asks_no_host(
    browser, asked: tuple[str, list[str]], tmp_path: Path, width: int
) -> None:
    host, paths = asked
    names = hostile(host)
    files = World(class_names=names, images=80, test_images=200).write(tmp_path)
    identity = Identity(
        project=names[0],
        made=names[3],
        version=names[1],
        command=names[8],
        parameters=tuple(Parameter(one, one, one) for one in names),
        seeds=((0, tuple(names)),),
    )
    page = tmp_path / "index.html"
    page.write_text(build_report(files, identity), encoding="utf-8")
    assert_sound(browser, page, width, "light")
    assert browser.execute_script(SCRIPTS) == ["undefined", 0, 0, []]
    points = browser.execute_script(
        "for (const one of document.querySelectorAll('.point')) {one.focus();"
        " getComputedStyle(one, '::after').content}"
        "return [...document.querySelectorAll('.point')].map(one => one.ariaLabel)"
    )
    assert any("onmouseover" in one for one in points)
    assert browser.get_log("browser") == []
    assert paths == []
