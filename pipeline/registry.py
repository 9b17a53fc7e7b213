"""Registries: names that params.yaml may use, each with the class behind it and its meaning.

A new objective or search engine is one file in its package and one line here: the allowed values,
the messages and docs/parameters.md follow. Nothing is imported before a name is loaded.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Entry(NamedTuple):
    """Class of a registry's package as `module:Class`, and its meaning for docs/parameters.md."""

    place: str
    meaning: str


@dataclass(frozen=True)
class Registry:
    """Classes of one package by the names that params.yaml gives them."""

    package: str
    entries: Mapping[str, Entry]

    def load(self, name: str) -> Any:
        """The class of a name, imported now.

        Raises:
            KeyError: no such name.
        """
        module, _, kind = self.entries[name].place.partition(":")
        return getattr(importlib.import_module(f"{self.package}.{module}"), kind)

    def meanings(self) -> str:
        """The names with their meanings, as a sentence of docs/parameters.md."""
        return "; ".join(f"`{name}`: {entry.meaning}" for name, entry in self.entries.items())


@dataclass(frozen=True)
class OneOf:
    """Annotation of a parameter: one of these words, as `Literal` is for words known before."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.literal_schema(list(self.words))


OBJECTIVES = Registry(
    "kd3_pipeline.distill.objectives",
    {
        "kd3": Entry("kd3:KD3", "selection, alignment and contrast, with measured departures"),
        "official": Entry("official:Official", "KD3 as its published code does it"),
        "kd": Entry("kd:KD", "softened logits"),
        "simkd": Entry("simkd:SimKD", "features alone"),
        "dfnd": Entry("dfnd:DFND", "the teacher's labels through a matrix of label noise"),
    },
)

SEARCH_ENGINES = Registry(
    "kd3_pipeline.crawl.engines",
    {
        "bing": Entry("bing:Bing", "the public pages of Bing's image search"),
        "flickr": Entry("flickr:Flickr", "Flickr's API, with a key in FLICKR_API_KEY"),
        "commons": Entry("commons:Commons", "Wikimedia Commons' API"),
        "openverse": Entry("openverse:Openverse", "Openverse's API, for few images"),
    },
)
