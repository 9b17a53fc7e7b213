"""Values of lines and headers: what each says of training. True allows it, False forbids it."""

import re

from kd3_pipeline.crawl.guard import OPT_OUTS, PRODUCT, robots_words

# RFC 9651: a dictionary of tokens, strings, numbers and lists, with parameters; nothing here goes
# back, so that hostile text takes no longer than other
_KEY = r"[a-z*][a-z0-9_\-.*]*+"
_BARE = (
    r"(?:[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*+"
    r'|"(?:[ !#-\[\]-~]|\\["\\])*+"|@?-?[0-9]{1,15}+(?:\.[0-9]{1,3}+)?+'
    r'|\?[01]|:[A-Za-z0-9+/=]*+:|%"(?:[ !#$&-~]|%[0-9a-f]{2})*+")'
)
_PARAMETERS = rf"(?:; *+{_KEY}(?:={_BARE})?+)*+"
_ITEM = rf"{_BARE}{_PARAMETERS}"
_LIST = rf"\( *+(?:{_ITEM}(?: ++{_ITEM})*+)?+ *+\){_PARAMETERS}"
MEMBER = re.compile(rf"({_KEY})(?:=(?:({_BARE}){_PARAMETERS}|{_LIST})|{_PARAMETERS})")
COMMA = re.compile(r"[ \t]*+,[ \t]*+")


def dictionary(text: str) -> dict[str, str] | None:
    """Keys and plain values of a structured field, "" for a value of parts; None if it is none.

    Of a key that comes twice the last value counts.
    """
    text = text.strip(" ")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        member = MEMBER.match(text, at)
        if member is None:
            return None
        found[member[1]] = member[2] or ""
        at = member.end()
        if at < len(text):
            comma = COMMA.match(text, at)
            if comma is None or comma.end() == len(text):
                return None
            at = comma.end()
    return found


def usage_says(text: str) -> bool | None:
    """What `train-ai=n` of AIPREF says; keys and values are told apart by case there."""
    return {"y": True, "n": False}.get((dictionary(text) or {}).get("train-ai", ""))


def signal_says(text: str) -> bool | None:
    """What `ai-train=no` of Content Signals says."""
    values = set()
    for part in re.split(r"[,;]", text.lower()):
        key, _, value = (word.strip() for word in part.partition("="))
        if key == "ai-train":
            values.add(value)
    return False if "no" in values else True if "yes" in values else None


def robots_says(text: str) -> bool | None:
    """What an X-Robots-Tag says to this crawler."""
    return False if robots_words([text], PRODUCT) & OPT_OUTS else None


def reservation_says(text: str) -> bool | None:
    """What `1` and `0` of TDMRep say."""
    return {"1": False, "0": True}.get(text.strip())


# values of RSL's usage that have training in them; the last two are its drafts'
TRAINING = {"all", "ai-all", "ai-train", "train-ai", "train-genai"}


def licensed(text: str) -> bool:
    """True if a list of RSL's usages has training in it."""
    return not TRAINING.isdisjoint(re.split(r"[\s,]+", text.strip().lower()))


def data_mining_says(text: str) -> bool | None:
    """What a value of `plus:DataMining` says, with the vocabulary's address in front or not."""
    value = re.split(r"[/#:]", text.strip().upper())[-1]
    if value.startswith("DMI-PROHIBITED"):
        return False
    return True if value == "DMI-ALLOWED" else None


def use_says(text: str) -> bool | None:
    """What the use of a C2PA or CAWG entry says; `constrained` is no permission there."""
    return {"allowed": True, "notAllowed": False, "constrained": False}.get(text)
