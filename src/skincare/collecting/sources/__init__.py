"""Where products come from: each source lists, addresses and reads its products behind one interface."""

from typing import Final

from skincare.collecting.sources.json_ld import JsonLd
from skincare.collecting.sources.lookfantastic import LookFantastic
from skincare.collecting.sources.open_beauty_facts import OpenBeautyFacts
from skincare.collecting.sources.source import Source
from skincare.errors import StageError

DEFAULT_SOURCE: Final[str] = LookFantastic.name
_ALL: Final[tuple[Source, ...]] = (LookFantastic(), JsonLd(), OpenBeautyFacts())
SOURCES: Final[dict[str, Source]] = {source.name: source for source in _ALL}


def source_named(name: str) -> Source:
    """Return a source; raises StageError for a name that is none."""
    if name not in SOURCES:
        raise StageError(f"{name!r} is no source; there are {', '.join(SOURCES)}")
    return SOURCES[name]
