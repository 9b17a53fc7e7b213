from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from kd3_pipeline import templates
from kd3_pipeline.templates import environment, figure, signed, times


@pytest.fixture
def render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Renders a text as a template of this name."""
    package = tmp_path / f"package_of_{tmp_path.name}"  # a module's name is taken once
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def render(name: str, text: str, /, **values: object) -> str:
        (package / name).write_text(text)
        made = environment(package.name, double=lambda x: 2 * x)
        return made.get_template(name).render(**values)

    return render


def test_pages_are_escaped_and_cards_escape_by_themselves(render) -> None:
    text = "{{ name }} {{ safe }} {{ 4|double }}"
    values = {"name": "<b>", "safe": Markup("<i>")}
    assert render("page.html.j2", text, **values) == "&lt;b&gt; <i> 8"
    assert render("card.md.j2", text, **values) == "<b> <i> 8"


def test_what_cannot_be_seen_is_never_written(render) -> None:
    hostile = "a\x00\x1b[2J\u202eb\u200b\ud800\tc\nd"
    for name in ("page.html.j2", "card.md.j2"):
        assert render(name, "{{ text }}", text=hostile) == "a[2Jb\tc\nd"


def test_a_value_that_is_not_given_is_an_error(render) -> None:
    with pytest.raises(UndefinedError):
        render("page.html.j2", "{{ name }}")


def test_values_are_written_as_people_read_them() -> None:
    assert templates.clip("abcdef", 6) == "abcdef" and templates.clip("abc def", 5) == "abc…"
    assert templates.percent(0.1234) == "12.3%" and templates.percent(None) == "–"
    assert [templates.points(one) for one in (1.26, -1.26, 0.04, None)] == [
        "+1.3",
        "−1.3",
        "0.0",
        "–",
    ]
    assert [templates.large(one) for one in (41_234_567, 1_234, 12)] == ["41.2 M", "1.23 k", "12"]
    assert templates.counted(1, "class", "classes") == "1 class"
    assert templates.counted(1200, "class", "classes") == "1,200 classes"
    assert templates.counted(0, "image") == "0 images"
    assert [templates.probability(one) for one in (0.031, 1e-5)] == ["= 0.031", "< 0.0001"]


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-11-29T12:00:05+00:00", "2026-11-29 12:00 UTC"),
        ("2026-11-29T12:00:05+02:00", "2026-11-29 12:00 UTC+02:00"),
        ("2026-11-29T12:00", "2026-11-29 12:00"),
        ("<soon>", "&lt;soon&gt;"),
        (None, "–"),
    ],
)
def test_a_moment_is_readable_and_what_is_none_stays(render, time: str | None, shown: str) -> None:
    assert render("page.html.j2", "{{ time|moment }}", time=time) == shown


def test_figures_of_any_size_are_written_without_an_exponent() -> None:
    assert [figure(value) for value in (0.8071, 27.63, 999.4, 999.6, 1026.68, 1e6)] == [
        *("0.807", "27.6", "999", "1,000", "1,027", "1,000,000")
    ]


def test_a_change_has_its_sign_and_a_ratio_that_of_multiplication() -> None:
    assert [signed(value) for value in (0, 1200, -3)] == ["·", "+1,200", "−3"]
    assert [times(value) for value in (None, 0.3351, 7.44)] == ["–", "× 0.335", "× 7.44"]
