"""Where the images to predict come from: files, folders, glob patterns, lists of paths and URLs. Names in, bytes out.

Names are expanded lazily and in a fixed order, so that any number of images takes little memory. A name that cannot be
read becomes an `ImageFile` with the reason. URLs are fetched by the collector's client with its guards: no private
addresses, limits on size, time and redirects, robots.txt.
"""

import glob
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from skincare import file_formats, worker_pool
from skincare.errors import MissingInputError, StageError
from skincare.text_reading.extraction import ImageFile

if TYPE_CHECKING:
    from skincare.collecting.http_client import HttpClient

# As a name: paths and URLs are read from standard input, one per line.
STDIN: Final = "-"
# Of a file. The largest photos have a tenth of it; a larger file is not read.
_MAX_FILE_BYTES: Final = 300_000_000
# Responses are small and servers slow: more requests in flight than there are cores.
_N_FETCHES: Final = 8


def check_names(names: Sequence[str]) -> None:
    """Raise MissingInputError for a named path that does not exist and that no file matches as a glob pattern."""
    for name in names:
        if not (name == STDIN or is_url(name) or _exists(name) or _matches(name)):
            raise MissingInputError("image", name, "Name images, folders, patterns such as 'photos/*.jpg', or URLs.")


def expand(names: Sequence[str], lists: Sequence[Path] = ()) -> Iterator[str]:
    """Yield the paths and URLs of names, then those that the lists contain, one per line.

    A folder stands for the images in it and its subfolders, sorted by their path. Raises StageError for a list that
    cannot be read.
    """
    for name in names:
        if name == STDIN:
            yield from _lines(sys.stdin.buffer)
        elif is_url(name) or _exists(name):
            yield from _expand_folder(name)
        else:
            for match in _matches(name):
                yield from _expand_folder(match)
    for path in lists:
        try:
            with path.open("rb") as opened:
                yield from _lines(opened)
        except OSError as error:
            raise StageError(f"The list {path} cannot be read: {error.strerror}") from error


def _exists(name: str) -> bool:
    # Unlike Path.exists and Path.is_dir, it takes names that are too long or hold a null byte.
    return os.path.exists(name)  # noqa: PTH110


def _matches(pattern: str) -> list[str]:
    # Path.glob refuses absolute patterns.
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207


def is_url(name: str) -> bool:
    """Return whether a name is a URL that can be fetched."""
    return name.lower().startswith(("http://", "https://"))


class ImageLoader:
    """Turns names into `ImageFile`s, with the bytes of URLs; its HTTP client is made for the first URL."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._lock = threading.Lock()
        self._client: HttpClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._client is not None:
            self._client.__exit__(None, None, None)

    def load_all(self, sources: Iterable[str]) -> Iterator[ImageFile]:
        """Yield an ImageFile for each path or URL, in order; some URLs are fetched ahead."""
        return worker_pool.map_threads(self.load, sources, n_threads=_N_FETCHES, ahead=2)

    def load(self, source: str) -> ImageFile:
        """Return the ImageFile of a path or a URL; what cannot be read has a reason."""
        return self._fetch(source) if is_url(source) else _checked_file(source)

    def _fetch(self, source: str) -> ImageFile:
        try:
            from skincare import urls
            from skincare.collecting.collector import MAX_IMAGE_BYTES
            from skincare.collecting.fetch_errors import FetchError
            from skincare.collecting.throttle import StoppedError
        except ImportError as error:
            reason = f"{error.name} is not installed: python -m pip install -r requirements.txt"
            return ImageFile("", source, Path(), reason=reason)
        try:
            url = urls.canonical_url(source, keep_query=True)
            return ImageFile("", source, Path(), self._http_client().get(url, MAX_IMAGE_BYTES).content)
        except FetchError as error:
            reason = f"{error.reason}: {error.detail}" if error.detail else error.reason
        except StoppedError:
            reason = "stopped"
        except ValueError:
            reason = "not_a_url"
        return ImageFile("", source, Path(), reason=reason)

    def _http_client(self) -> "HttpClient":
        from skincare.collecting.http_client import FetchLimits, HttpClient

        with self._lock:
            if self._client is None:
                limits = FetchLimits(attempts=3, read_timeout_s=15.0, total_timeout_s=60.0, max_pause_s=30.0)
                self._client = HttpClient(concurrency=_N_FETCHES, allow_private=self._allow_private, limits=limits)
            return self._client


def _lines(opened: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(opened):
        # Bytes that are not UTF-8 stay in a file name.
        text = line.removeprefix(b"\xef\xbb\xbf" if number == 0 else b"").decode("utf-8", "surrogateescape")
        if name := text.rstrip("\r\n"):
            yield from _expand_folder(name)


def _expand_folder(name: str) -> Iterator[str]:
    if not is_url(name) and os.path.isdir(name):  # noqa: PTH112
        yield from map(str, _images_below(Path(name)))
    else:
        yield name


def _images_below(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders, sorted by the parts of their paths.

    A folder that cannot be listed is yielded itself, so that it gets a row.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        entries = []
        yield folder
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _images_below(entry)
        elif entry.suffix.lower() in file_formats.SUFFIXES and entry.is_file():
            yield entry


def _checked_file(source: str) -> ImageFile:
    """Return a local file; with a reason if it is no regular file of a usual size."""
    path = Path(source)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ImageFile("", source, path, reason="missing_file")
    except (OSError, ValueError) as error:
        return ImageFile("", source, path, reason=f"unreadable_file: {getattr(error, 'strerror', None) or error}")
    if not stat.S_ISREG(status.st_mode):
        return ImageFile("", source, path, reason="not_a_file")
    reason = f"too_large: {status.st_size} bytes" if status.st_size > _MAX_FILE_BYTES else ""
    return ImageFile("", source, path, reason=reason)
