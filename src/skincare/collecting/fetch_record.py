"""The record of one fetch: HTTP status, attempts, seconds, and the validators for the next conditional request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

# Longer or non-ASCII values are dropped. Source: RFC 9110, sections 8.8.2 and 8.8.3.
_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,200}"')
_HTTP_DATE: Final = re.compile(r"[\x20-\x7e]{1,40}")


@dataclass(frozen=True)
class FetchRecord:
    """One fetch with all its attempts; `seconds` is the time of its requests, without the waiting for the throttle."""

    http_status: int | None = None
    attempts: int = 0
    seconds: float = 0.0
    etag: str = ""
    last_modified: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Return a record that holds the validators of a response's headers, each empty where absent or malformed."""
        etag, last_modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        return cls(
            etag=etag if _ETAG.fullmatch(etag) else "",
            last_modified=last_modified if _HTTP_DATE.fullmatch(last_modified) else "",
        )

    @property
    def conditional_headers(self) -> dict[str, str]:
        """Return the headers of a conditional request: If-None-Match and If-Modified-Since, as far as known."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}
