"""Reliability diagrams: how often a network is right when it says how sure it is."""

from markupsafe import Markup

from kd3_pipeline.metrics import Bin
from kd3_pipeline.report.figures import BOTTOM, LEFT, RIGHT, TOP, WIDTH

HEIGHT = 260
STRIP = 34  # of the height, for how many images each bin has


def reliability_diagram(bins: tuple[Bin, ...], label: str) -> Markup:
    """Accuracy by confidence beside the diagonal of perfect calibration (Guo et al., 2017).

    Below, the share of the images in each bin.
    """
    floor = HEIGHT - BOTTOM - STRIP
    total = sum(one.images for one in bins) or 1
    largest = max((one.images for one in bins), default=0) or 1

    def x(value: float) -> float:
        return LEFT + value * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return floor - 8 - value * (floor - 8 - TOP)

    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
            '<text x="{3}" y="{2:.1f}" dy="0.35em" text-anchor="end">{4:.0%}</text>'
            '<text x="{5:.1f}" y="{6}" text-anchor="{7}">{4:.0%}</text>'
        ).format(LEFT, WIDTH - RIGHT, y(mark), LEFT - 8, mark, x(mark), HEIGHT - 6, anchor)
        for mark, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    bars = Markup("").join(
        Markup(
            "<g><title>{:.0%} to {:.0%} sure: {:,} images, {:.1%} right</title>"
            '<rect class="bin" x="{:.1f}" width="{:.1f}" y="{:.1f}" height="{:.1f}"/>'
            '<rect class="share" x="{:.1f}" width="{:.1f}" y="{:.1f}" height="{:.1f}"/></g>'
        ).format(
            one.low,
            one.high,
            one.images,
            one.accuracy,
            x(one.low) + 0.5,
            x(one.high) - x(one.low) - 1,
            y(one.accuracy),
            y(0) - y(one.accuracy),
            x(one.low) + 0.5,
            x(one.high) - x(one.low) - 1,
            floor + STRIP * (1 - one.images / largest),
            STRIP * one.images / largest,
        )
        for one in bins
        if one.images and one.accuracy is not None
    )
    top = max(bins, key=lambda one: one.images, default=None)
    told = f"{label}: accuracy by confidence in {len(bins)} steps"
    if top is not None:
        told += f"; {top.images / total:.0%} of the images are {top.low:.0%} to {top.high:.0%} sure"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title>{}{}'
        '<line class="perfect" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/></svg>'
    ).format(WIDTH, HEIGHT, told, grid, bars, x(0), y(0), x(1), y(1))
