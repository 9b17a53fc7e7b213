"""Contact sheet of what dedup drops: a self-contained HTML page."""

from collections.abc import Collection, Sequence

from kd3_pipeline.report.dropped.choice import Row, Section
from kd3_pipeline.report.tiles import web_link
from kd3_pipeline.templates import environment


def build_dropped_page(
    headline: str,
    dry_run: bool,
    classes: Sequence[Row],
    loud: Collection[str],
    sections: Sequence[Section],
) -> str:
    """Build the page. Text may come from the web: it is shown as it is, and never obeyed.

    Args:
        headline: what becomes of the images, in one line.
        dry_run: nothing was dropped yet.
        classes: the table of classes, its head first.
        loud: names of those that lose more than is usual.
        sections: what goes, by reason.
    """
    page = environment("kd3_pipeline.report").get_template("dropped/page.html.j2")
    return page.render(
        headline=headline,
        dry_run=dry_run,
        head=classes[0],
        classes=classes[1:],
        loud=loud,
        sections=sections,
        web=web_link,
    )
