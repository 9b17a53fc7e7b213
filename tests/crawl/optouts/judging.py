"""Verdicts on an image, by what its origin and its answer say."""

from multidict import CIMultiDict

from kd3_pipeline.crawl.optouts.headers import heard
from kd3_pipeline.crawl.optouts.origin import Said
from kd3_pipeline.params import Crawl

ORIGIN = "http://0.test"
IMAGE = f"{ORIGIN}/img/a.jpg"
OURS = "User-agent: kd3-pipeline\n"
ALL = "User-agent: *\n"


def judged(text="", tdmrep=None, headers=None, licences=None, address=IMAGE, **changes):
    """The verdict on an image, and the kinds of files that it took."""
    said, asked = Said.of(ORIGIN, Crawl().model_copy(update=changes)), []
    answered = heard(CIMultiDict(headers or {}), address)
    while True:
        question = said.question
        if question is None:
            if said.unread(answered):
                continue
            break
        asked.append(question.kind)
        files = {
            "robots": text,
            "tdmrep": tdmrep,
            "licence": (licences or {}).get(question.address),
        }
        data = files[question.kind]
        said.hear(
            question, question.nothing("404") if data is None else question.answer(_raw(data))
        )
    return said.verdict(address, answered), asked


def _raw(data):
    return data if isinstance(data, bytes) else data.encode()
