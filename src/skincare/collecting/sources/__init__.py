"""Product sources: each lists, addresses and parses its products behind one interface."""

from typing import Final

from skincare.collecting.sources.lookfantastic import LookFantastic
from skincare.collecting.sources.open_beauty_facts import OpenBeautyFacts
from skincare.collecting.sources.source import Source
from skincare.collecting.sources.web_page import WebPage
from skincare.errors import StageError

DEFAULT_SOURCE: Final[str] = LookFantastic.name
_ALL: Final[tuple[Source, ...]] = (LookFantastic(), WebPage(), OpenBeautyFacts())
SOURCES: Final[dict[str, Source]] = {source.name: source for source in _ALL}
# Former names, still accepted in catalogues and on the command line.
_FORMER_NAMES: Final[dict[str, str]] = {"json_ld": WebPage.name}


def source_named(name: str) -> Source:
    """Return a source by name; raises StageError for an unknown name."""
    source = SOURCES.get(_FORMER_NAMES.get(name, name))
    if source is None:
        raise StageError(f"{name!r} is no source; there are {', '.join(SOURCES)}")
    return source
