"""How an address was visited: the server's word, the number of tries, the time, and what to ask with the next time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

# Anything longer or stranger is kept by nobody's cache either. Source: RFC 9110, sections 8.8.2 and 8.8.3.
_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,200}"')
_HTTP_DATE: Final = re.compile(r"[\x20-\x7e]{1,40}")


@dataclass(frozen=True)
class FetchRecord:
    """One visit with all its tries; `seconds` are those of its requests, without the wait for a turn."""

    http_status: int | None = None
    attempts: int = 0
    seconds: float = 0.0
    etag: str = ""
    last_modified: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Return what an answer's headers give to ask with whether it has changed."""
        etag, last_modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        return cls(
            etag=etag if _ETAG.fullmatch(etag) else "",
            last_modified=last_modified if _HTTP_DATE.fullmatch(last_modified) else "",
        )

    @property
    def conditional_headers(self) -> dict[str, str]:
        """Return the request headers that ask for the content only if it has changed since this visit."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}
