"""Wording of search queries: what to ask for a name that was written for a program."""

import re
import unicodedata
from collections.abc import Iterator

# numbers that data sets put before a name: WordNet's (n02085620-Chihuahua), a rank (001.Albatross),
# a letter of the alphabet (/a/airfield)
NUMBERED = re.compile(r"^(?:[nvar]\d{8}[-_ .]+|\d+\.(?=[^\W\d])|/[a-z]/)(?=.)")
WORDNET = re.compile(r"[nvar]\d{8}")
PLACEHOLDER = re.compile(r"(?:class|label|category|id|object|c)?[\W_]*\d+", re.IGNORECASE)
LATIN = re.compile(r"[\x00-\u024f\u1e00-\u1eff]*")  # Basic Latin to Latin Extended
HYPHEN = re.compile(r"(?<=\w{2})-(?=\w{2})")  # and not that of T-shirt
# between words, not within TCP/IP, 24/7 or w/o
SLASH = re.compile(r"(?<=[a-zß-öø-ÿ]{2})/(?=\w)|(?<=\w)/(?=.?[a-zß-öø-ÿ]{2})")
WHICH = re.compile(r"(?<=\w) ?\(([\w ]+)\)$")  # crane (bird)
ODD = re.compile(r"[<>$;`{}|\\=*^~\"]")  # in no name of a thing: it is asked for as it is
PART = re.compile(
    r"(?:^[a-z]|Mc)[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]+"  # iPhone, McLaren
    r"|[A-ZÀ-ÖØ-Þ]{2,}s(?![a-zß-öø-ÿ])"  # SUVs
    r"|[A-ZÀ-ÖØ-Þ]+(?![a-zß-öø-ÿ])"  # SUV, and the T of TShirt
    r"|[A-ZÀ-ÖØ-Þ]?[a-zß-öø-ÿ]+"
    r"|\d+(?:[a-z]{1,2}(?![a-z]))?"  # 2, 2nd
)
# parts of two letters that are words; others speak for a name as PhD or LaTeX
SHORT_WORDS = {"of", "in", "on", "at", "by", "to", "or", "no", "up", "ox", "tv"}
PHOTO = re.compile(r"\s+(?:photo|photos|photograph|picture|image)$", re.IGNORECASE)


def readable(name: str) -> str:
    """A class name as people write it: `aquarium_fish` and `AquariumFish` are "aquarium fish".

    A name with spaces is written for people already, and so is one in another alphabet: of these,
    underscores and brackets alone are replaced. `AT&T`, `C#`, `USA`, `T-shirt`, `iPhone` and `4x4`
    stay. "tench, Tinca tinca", as ImageNet has it, is its first name.
    """
    first, *_ = synonyms(name)
    bare = NUMBERED.sub("", first)
    if ODD.search(name) or not re.search(r"[^\W_]", bare):
        return name
    spaced = WHICH.sub(r" \1", bare.replace("_", " "))
    if LATIN.fullmatch(spaced):
        spaced = SLASH.sub(" ", spaced)
        if not re.search(r"[\s_]", bare.strip()):
            spaced = HYPHEN.sub(" ", spaced)
        if " " not in bare.strip():
            spaced = " ".join(" ".join(_parts(word)) for word in spaced.split())
    # a hyphen before a word would leave out what has it, to most engines
    return " ".join(spaced.split()).lstrip("-").strip() or name


def synonyms(name: str) -> list[str]:
    """The names of one class that are written as one, "tench, Tinca tinca"."""
    if not re.search(r"\w, +\w", name):
        return [name]
    return [one for one in (part.strip() for part in re.split(r", +", name)) if one]


def doubt(name: str) -> str:
    """Why a search engine cannot know what is meant, "" if it can."""
    if WORDNET.fullmatch(name):
        return "is a number of WordNet, which search engines do not know"
    if PLACEHOLDER.fullmatch(name):
        return "is a number, and no name of a thing"
    return ""


def subject(query: str) -> str:
    """What a query is about: "cat photo" is about "cat"."""
    return PHOTO.sub("", query)


def same(query: str) -> str:
    """A key that is equal for queries that ask for the same."""
    text = unicodedata.normalize("NFC", query).casefold()
    return " ".join(re.sub(r"[-_\s]+", " ", text).split())


def _parts(word: str) -> Iterator[str]:
    """The words within one, `SeaLake` or `Boeing747`; a name such as PhD, AT&T or mp3 is one."""
    found = list(PART.finditer(word))
    texts = [one[0] for one in found]
    whole = "".join(texts) == word
    if not whole or len(texts) < 2 or not all(_stands_alone(texts, at) for at in range(len(texts))):
        yield word
        return
    for text in texts:
        # what begins a word within a word is no capital of its own
        plain = text[1:].islower() and not any(letter.isupper() for letter in text[1:])
        yield text.lower() if plain and not text[0].isdigit() else text


def _stands_alone(texts: list[str], at: int) -> bool:
    text = texts[at]
    beside = [texts[index] for index in (at - 1, at + 1) if 0 <= index < len(texts)]
    if text[0].isdigit():  # of `2DoorCar` and `Boeing747`, not of mp3, A320, 4x4 or H2O
        return all(len(one) >= 3 and not one.isupper() for one in beside)
    if text.isupper():  # USA, or the first letter of TShirt
        return len(text) > 1 or at == 0
    return len(text) > 2 or text.lower() in SHORT_WORDS
