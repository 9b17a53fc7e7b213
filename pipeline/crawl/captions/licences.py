"""Licences as tables state them, by name or address."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

FREE = r"(?i)\bcc\b|creative\s*commons|\bcc[-_ ]?(0|by|zero)|public\W*domain|\bpdm\b|^\s*by(-|\b)"
PUBLIC_DOMAIN = r"(?i)\bcc[-_ ]?(0|zero)|public\W*domain|\bpdm\b"
NO_COMMERCE = r"(?i)(\b|[-_])nc(\b|[-_])|non[- ]?commercial"
NO_CHANGE = r"(?i)(\b|[-_])nd(\b|[-_])|no[- ]?deriv"


def allowed(told: Sequence[pa.Array], wanted: str) -> pa.Array:
    """Which rows state a licence that `crawl.licence` wants.

    Args:
        told: columns of text, together what a row states.
    """
    space = pa.scalar(" ", pa.large_string())
    text = pc.binary_join_element_wise(*[pc.fill_null(one, "") for one in told], space)
    free = pc.match_substring_regex(text, FREE)
    if wanted == "public-domain":
        return pc.match_substring_regex(text, PUBLIC_DOMAIN)
    if wanted == "commercial":
        return pc.and_not(free, pc.match_substring_regex(text, NO_COMMERCE))
    if wanted == "modify":
        return pc.and_not(free, pc.match_substring_regex(text, NO_CHANGE))
    return free
