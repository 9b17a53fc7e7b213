"""Memory that one picture may take in this process while it is decoded."""

MEGABYTES = 300  # unless a parameter says otherwise
OF_PICTURE = 0.9e6  # bytes of a megabyte that are the picture's and its decoder's


class _Limit:
    megabytes: float = MEGABYTES


def allow(megabytes: float) -> None:
    """Sets the limit, `crawl.picture_memory`; who starts a process tells it."""
    _Limit.megabytes = megabytes


def allowed() -> float:
    """Megabytes that one picture may take."""
    return _Limit.megabytes


def most_bytes() -> float:
    """Bytes of one picture and its decoder that are allowed."""
    return _Limit.megabytes * OF_PICTURE
