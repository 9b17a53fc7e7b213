"""EXIF data of a picture: how it stands, and whether it says where it was taken."""

import contextlib

from PIL import Image

UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, GPS, LATITUDE = 0x0112, 0x8825, 0x0002  # tags of Exif 2.32, 4.6.4 and 4.6.6


def orientation(image: Image.Image) -> int:
    """What a loaded picture's EXIF data says about how it stands, or 0; broken data says nothing.

    Pillow would take XMP's word for it too, which no browser does.
    """
    found: object = 0
    # damaged metadata makes Pillow raise anything, and costs no picture
    with contextlib.suppress(Exception):
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        found = exif.get(ORIENTATION)
    return int(found) if isinstance(found, int) and found in UPRIGHT else 0


def has_place(image: Image.Image) -> bool:
    """Whether EXIF or XMP data has a place; broken data has none."""
    with contextlib.suppress(Exception):
        latitude = LATITUDE in image.getexif().get_ifd(GPS)
        return latitude or b"GPSLatitude" in image.info.get("xmp", b"")
    return False
