"""Where products come from: each source lists, addresses and reads its products behind one interface."""

from typing import Final

from skincare.collecting.sources.lookfantastic import LookFantastic
from skincare.collecting.sources.open_beauty_facts import OpenBeautyFacts
from skincare.collecting.sources.source import Source
from skincare.collecting.sources.web_page import WebPage
from skincare.errors import StageError

DEFAULT_SOURCE: Final[str] = LookFantastic.name
_ALL: Final[tuple[Source, ...]] = (LookFantastic(), WebPage(), OpenBeautyFacts())
SOURCES: Final[dict[str, Source]] = {source.name: source for source in _ALL}
# What sources were called; catalogues and commands that say so go on.
_FORMER_NAMES: Final[dict[str, str]] = {"json_ld": WebPage.name}


def source_named(name: str) -> Source:
    """Return a source; raises StageError for a name that is none."""
    source = SOURCES.get(_FORMER_NAMES.get(name, name))
    if source is None:
        raise StageError(f"{name!r} is no source; there are {', '.join(SOURCES)}")
    return source
