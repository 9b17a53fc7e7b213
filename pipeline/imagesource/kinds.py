"""Kinds of files by their first bytes: a name says little, and may lie."""

import re

from kd3_pipeline.formats import picture_kind

# endings of pictures, read here or not: who names a file so expects it to be looked at
PICTURE_ENDINGS = re.compile(
    r"\.(a?png|jpe?g|jpe|jfif|jif|pjpe?g|pjp|gif|bmp|dib|webp|tiff?|jp2|j2[kc]|jp[fxc]|avifs?"
    r"|hei[cf]|hif|jxl|jxr|svgz?|psd|ico|qoi|p[pgbn]m|tga|dds|exr|hdr|xcf|cr[23]|nef|arw|dng|orf"
    r"|rw2|raf)"
)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def ending(name: str) -> str:
    """The ending of a name in small letters, with its dot; "" for none."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


def is_picture(name: str, head: bytes) -> bool:
    """Tells whether a file is to be looked at: a picture by content, or at least by its name."""
    return bool(PICTURE_ENDINGS.fullmatch(ending(name))) or bool(picture_kind(head))


def is_tar(name: str, head: bytes) -> bool:
    """Tells whether a file is an archive; a packed one has to be named so."""
    return head[257:262] == b"ustar" or name.lower().endswith(TAR_ENDINGS)


def is_parquet(name: str, head: bytes) -> bool:
    """Tells whether a file is a Parquet table."""
    return head[:4] == b"PAR1" or ending(name) == ".parquet"
