"""Images by URL, fetched with the guards of the collector: only public addresses, limited size and time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from skincare import urls
from skincare.collecting.fetch_errors import FetchError
from skincare.collecting.http_client import FetchLimits, HttpClient

_N_THREADS: Final = 8
_LIMITS: Final = FetchLimits(
    attempts=1, connect_timeout_s=5, read_timeout_s=10, total_timeout_s=15, max_redirects=3, max_pause_s=5
)


class ImageUrlError(Exception):
    """The URL gave no image; `reason` is one word or a short sentence without a path of the machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ImageUrls:
    """Fetches images on a few threads. `allow_private` also allows addresses that are not public, for tests."""

    def __init__(self, max_bytes: int, contact: str = "", *, allow_private: bool = False) -> None:
        self._max_bytes = max_bytes
        self._contact = contact
        self._allow_private = allow_private
        self._threads = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="fetch")

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL; raises ImageUrlError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._get, url)

    def _get(self, url: str) -> bytes:
        try:
            address = urls.canonical_url(url, keep_query=True)
        except ValueError as error:
            raise ImageUrlError("not_a_web_address") from error
        # A client per URL: what it remembers of hosts would grow with every host that somebody names.
        with HttpClient(self._contact, allow_private=self._allow_private, limits=_LIMITS) as client:
            try:
                return client.get(address, self._max_bytes).content
            except FetchError as error:
                detail = "" if error.reason == "private_address" else error.detail
                raise ImageUrlError(f"{error.reason}: {detail}" if detail else error.reason) from error
