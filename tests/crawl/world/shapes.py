"""Pages of the search services, by the shape of theirs, and the questions that they get."""

import html
import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote_plus

from kd3_pipeline.crawl.engines.bing import Bing
from kd3_pipeline.crawl.engines.commons import Commons
from kd3_pipeline.crawl.engines.engine import Engine
from kd3_pipeline.crawl.engines.flickr import Flickr
from kd3_pipeline.crawl.engines.openverse import Openverse
from tests.crawl.world.shape import BASE, Answer, Question, Shape, as_json


class BingShape(Shape):
    """Pages of HTML, whose number of results has nothing to do with what was asked for."""

    name, page_results = "bing", 35

    def engine(self) -> Engine:
        return Bing("bing", BASE, 0.0)

    def question(self, fields: Mapping[str, str]) -> Question:
        return Question(fields["q"], fields.get("qft", ""), int(fields.get("first") or 0))

    def page(self, asked: Question, urls: Sequence[str], total: int, start: int) -> Answer:
        after = start + len(urls)
        next_url = f"/images/async?q={quote_plus(asked.query)}&first={after}" * (after < total)
        table = "".join(self._item(asked.query, url, start + n) for n, url in enumerate(urls))
        return self._html(
            '<div class="dg_b isvctrl"><div id="mmComponent_images_1" class="dgControl dtl hover"'
            f' data-nextUrl="{html.escape(next_url)}" data-layout="row">'
            f'<ul data-row = 0 class="dgControl_list ">{table}</ul></div></div>'
            f'<script>var RawRequestURL="/images/async?q='
            f'{quote_plus(asked.query)}&first={start}";</script>'
        )

    def _item(self, query: str, url: str, number: int) -> str:
        record = {
            "cid": f"c{number}",
            "purl": f"http://page.test/{number}",
            "murl": url,
            "turl": f"https://ts1.mm.bing.test/th?id=OIP.{number}&pid=15.1",
            "md5": f"{number:032x}",
            "t": f"picture {number}",
        }
        where = f"/images/search?view=detailV2&q={quote_plus(query)}&selectedIndex={number}"
        return (
            f'<li data-idx = {number}><div class="iuscp isv"><div class="imgpt">'
            f'<a class="iusc" m="{html.escape(json.dumps(record))}" href="{html.escape(where)}">'
            "</a></div></div></li>"
        )

    def busy(self) -> Answer:
        return self._html("")

    def odd(self) -> Answer:
        return self._html("<html><body><h1>Before you continue</h1><form></form></body></html>")

    def _html(self, text: str) -> Answer:
        return Answer(text.encode(), 200, {"Content-Type": "text/html; charset=utf-8"})


class CommonsShape(Shape):
    """MediaWiki's API: what goes on is in `continue`, and what ends has no `query`."""

    name, page_results = "commons", 50

    def engine(self) -> Engine:
        return _unhurried(Commons(BASE))

    def question(self, fields: Mapping[str, str]) -> Question:
        words = fields["gsrsearch"].split()
        filters = [word for word in words if ":" in word]
        query = " ".join(word for word in words if ":" not in word)
        return Question(query, " ".join(filters), int(fields.get("gsroffset") or 0))

    def page(self, asked: Question, urls: Sequence[str], total: int, start: int) -> Answer:
        if not urls:
            return as_json({"batchcomplete": True})
        width = asked.fields.get("iiurlwidth")
        pages = [self._file(url, start + n, width) for n, url in enumerate(urls)]
        after = start + len(urls)
        more = {"continue": {"gsroffset": after, "continue": "gsroffset||"}}
        return as_json(
            {"batchcomplete": True, **(more if after < total else {}), "query": {"pages": pages}}
        )

    def _file(self, url: str, number: int, width: str | None) -> dict[str, object]:
        info = {
            "size": 3_000_000,
            "width": 4000,
            "height": 3000,
            "mime": "image/jpeg",
            "url": url,
            "descriptionurl": f"http://page.test/wiki/File:{number}.jpg",
            "extmetadata": {"LicenseShortName": {"value": "CC BY-SA 4.0"}},
        }
        if width:
            small = f"{url.replace('.test/', '.test/thumb/')}/{width}px-{url.rsplit('/')[-1]}"
            info |= {
                "thumburl": small,
                "thumbwidth": int(width),
                "thumbheight": int(width) * 3 // 4,
            }
        return {
            "pageid": number + 1,
            "ns": 6,
            "title": f"File:{number}.jpg",
            "index": number + 1,
            "imageinfo": [info],
        }

    def busy(self) -> Answer:
        info = "Search is currently too busy. Please try again later."
        return as_json({"error": {"code": "cirrussearch-too-busy-error", "info": info}})

    def odd(self) -> Answer:
        return as_json({"batchcomplete": True, "limits": {"coordinates": 500}})


class FlickrShape(Shape):
    """Flickr's API: every answer has status 200."""

    name, page_results = "flickr", 100

    def engine(self) -> Engine:
        return _unhurried(Flickr(BASE))

    def question(self, fields: Mapping[str, str]) -> Question:
        page = int(fields.get("page") or 1)
        own = ("license", "sort", "content_types", "content_type", "color_codes", "orientation")
        filters = "&".join(f"{name}={fields[name]}" for name in own if name in fields)
        return Question(fields["text"], filters, (page - 1) * self.page_results)

    def page(self, asked: Question, urls: Sequence[str], total: int, start: int) -> Answer:
        photos = {
            "page": start // self.page_results + 1,
            "pages": -(-total // self.page_results),
            "perpage": self.page_results,
            "total": total,
            "photo": [self._photo(url, start + n) for n, url in enumerate(urls)],
        }
        return as_json({"photos": photos, "stat": "ok"})

    def _photo(self, url: str, number: int) -> dict[str, object]:
        return {
            "id": str(number),
            "owner": "1@N0",
            "title": f"photo {number}",
            "license": "4",
            "ownername": "o",
            "url_l": url,
            "width_l": 1024,
            "height_l": 683,
        }

    def failure(self, code: int, message: str) -> Answer:
        """A refusal, by the numbers of flickr.photos.search."""
        return as_json({"stat": "fail", "code": code, "message": message})

    def busy(self) -> Answer:
        return self.failure(105, "Service currently unavailable")

    def odd(self) -> Answer:
        return as_json({"stat": "ok"})


class OpenverseShape(Shape):
    """Openverse's API, with the limits that it has for clients without a token."""

    name, page_results = "openverse", 20

    def engine(self) -> Engine:
        return _unhurried(Openverse(BASE))

    def question(self, fields: Mapping[str, str]) -> Question:
        page = int(fields.get("page") or 1)
        own = ("license", "license_type", "category", "size", "aspect_ratio", "extension")
        filters = "&".join(f"{name}={fields[name]}" for name in own if name in fields)
        return Question(fields["q"], filters, (page - 1) * self.page_results)

    def page(self, asked: Question, urls: Sequence[str], total: int, start: int) -> Answer:
        results = [
            {
                "id": f"{start + n}",
                "url": url,
                "title": f"photo {start + n}",
                "license": "by",
                "license_version": "2.0",
                "foreign_landing_url": f"http://page.test/{start + n}",
            }
            for n, url in enumerate(urls)
        ]
        return as_json(
            {
                "result_count": total,
                "page_count": -(-total // self.page_results),
                "page_size": self.page_results,
                "page": start // self.page_results + 1,
                "results": results,
            }
        )

    def busy(self) -> Answer:
        return as_json({"detail": "The service is temporarily unavailable."}, 503)

    def odd(self) -> Answer:
        return as_json({"detail": "Internal error"})

    def limited(self, seconds: int, told: bool) -> Answer:
        detail = f"Request was throttled. Expected available in {seconds} seconds."
        answer = as_json({"detail": detail}, 429)
        more = {"Retry-After": str(seconds)} if told else {}
        return Answer(answer.body, 429, {**answer.headers, **more})


def _unhurried(engine: Engine) -> Engine:
    engine.page_gap = 0.0
    return engine


SHAPES: dict[str, Shape] = {
    one.name: one for one in (BingShape(), CommonsShape(), FlickrShape(), OpenverseShape())
}
