"""Search engines by name. A new one is a file here and a line below."""

from collections.abc import Callable

from pipeline.crawl.engines.baidu import Baidu
from pipeline.crawl.engines.bing import Bing
from pipeline.crawl.engines.commons import Commons
from pipeline.crawl.engines.engine import Engine
from pipeline.crawl.engines.flickr import Flickr
from pipeline.crawl.engines.google import Google
from pipeline.crawl.engines.openverse import Openverse

ENGINES: dict[str, Callable[[], Engine]] = {
    "bing": Bing,
    "flickr": Flickr,
    "commons": Commons,
    "openverse": Openverse,
    "google": Google,
    "baidu": Baidu,
}
