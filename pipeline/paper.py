"""White paper behind pictures, which shows where they are transparent or do not reach."""

from typing import Literal

from PIL import Image

from kd3_pipeline.strips import strips


def flat(image: Image.Image, factor: Literal[1, 2] = 1) -> Image.Image:
    """RGB of a loaded picture, transparency on white; a strip at a time, to spare memory.

    Args:
        factor: by which it becomes smaller.
    """
    seen = image.has_transparency_data
    if factor == 1 and not seen:
        return image if image.mode == "RGB" else image.convert("RGB")
    width, height = image.size
    made = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top, strip in strips(image):
        if seen:
            paper = Image.new("RGBA", strip.size, "white")
            strip = Image.alpha_composite(paper, strip.convert("RGBA"))
        made.paste(strip.convert("RGB").reduce(factor), (0, top // factor))
    return made


def white_around(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A GIF that is white where its frame is not, as what is behind it would be."""
    left, top, right, bottom = frame
    width, height = image.size
    if frame == (0, 0, width, height):
        return image
    image = image.convert("RGB")
    for box in (
        *((0, 0, width, top), (0, bottom, width, height)),
        *((0, 0, left, height), (right, 0, width, height)),
    ):
        if box[0] < box[2] and box[1] < box[3]:
            image.paste("white", box)
    return image
