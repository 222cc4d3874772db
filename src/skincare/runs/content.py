"""Content hashes of files and folders.

A file is known by the SHA-256 of its bytes; a folder by the SHA-256 of its listing, one line `sha256 size path` for
each file, sorted by path. Hashes of unchanged files are cached in .cache/content.sqlite.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, NamedTuple, Self

from tqdm import tqdm

from skincare.errors import StageError
from skincare.paths import Layout

# A file may change again within the clock's resolution and keep its time: younger files are not cached.
_SETTLED_AFTER_S: Final = 2.0
_TABLE: Final = "create table if not exists hashes (path text primary key, stamp text, sha256 text)"


class FileEntry(NamedTuple):
    """One line of a listing; `path` is relative, with forward slashes."""

    sha256: str
    n_bytes: int
    path: str


@dataclass(frozen=True)
class Listing:
    """The files of a folder, sorted by path; paths are relative to the folder."""

    entries: tuple[FileEntry, ...]

    @property
    def text(self) -> str:
        """Return one line for each file."""
        return "".join(f"{one.sha256} {one.n_bytes} {one.path}\n" for one in self.entries)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the listing, which is equal for equal content."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def n_bytes(self) -> int:
        """Return the total size."""
        return sum(one.n_bytes for one in self.entries)


def parse_listing(text: str) -> Listing:
    """Return the listing of `Listing.text`; raises ValueError for anything else."""
    entries = []
    for line in text.splitlines():
        sha256, size, path = line.split(" ", 2)
        entries.append(FileEntry(sha256, int(size), path))
    return Listing(tuple(entries))


class ContentHasher:
    """Hashes files below a root, in threads, with a cache that may be deleted at any time.

    use_cache: False reads every file again, as a verification must.
    """

    def __init__(self, layout: Layout, *, use_cache: bool = True) -> None:
        self._root = layout.root
        self._cache_file = layout.content_cache if use_cache else None
        self._opened: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._opened is not None:
            self._opened.commit()
            self._opened.close()

    def file(self, path: Path) -> FileEntry:
        """Return the entry of one file, under its name."""
        return self.entries([path], path.parent)[0]

    def listing(self, folder: Path) -> Listing:
        """Return the listing of a folder, without temporary files and symbolic links."""
        return Listing(tuple(self.entries(sorted(files_below(folder)), folder)))

    def entries(self, paths: Iterable[Path], parent: Path) -> list[FileEntry]:
        """Return the entries of files in their order, with paths relative to `parent`."""
        ordered = list(paths)
        states = [path.stat() for path in ordered]
        known = [self._recall(path, state) for path, state in zip(ordered, states, strict=True)]
        missing = [path for path, sha256 in zip(ordered, known, strict=True) if sha256 is None]
        # hashlib releases the GIL.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            new = iter(
                tqdm(pool.map(sha256_of, missing), "hashing", len(missing), unit="file", disable=_is_short(missing))
            )
            found = [sha256 or next(new) for sha256 in known]
        for path, state, before, sha256 in zip(ordered, states, known, found, strict=True):
            if before is None:
                self._remember(path, state, sha256)
        return [
            FileEntry(sha256, state.st_size, path.relative_to(parent).as_posix())
            for path, state, sha256 in zip(ordered, states, found, strict=True)
        ]

    @property
    def _cache(self) -> sqlite3.Connection | None:
        """Return the cache, opened when it is first used."""
        if self._opened is None and self._cache_file is not None:
            self._opened = _open(self._cache_file)
        return self._opened

    def _recall(self, path: Path, state: os.stat_result) -> str | None:
        cache = self._cache
        if cache is None:
            return None
        row = cache.execute("select stamp, sha256 from hashes where path = ?", (self._key(path),)).fetchone()
        return row[1] if row and row[0] == _stamp(state) else None

    def _remember(self, path: Path, state: os.stat_result, sha256: str) -> None:
        cache = self._cache
        if cache is not None and time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED_AFTER_S:
            cache.execute("insert or replace into hashes values (?, ?, ?)", (self._key(path), _stamp(state), sha256))

    def _key(self, path: Path) -> str:
        return os.fsdecode(os.fsencode(os.path.relpath(path, self._root))).encode("utf-8", "replace").decode()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the regular files of a folder, recursively; no temporary files, no symbolic links, no line breaks in names.

    `folder` itself may be a symbolic link. Raises StageError for a name that a listing cannot hold.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_temporary(name))
        for name in names:
            path = Path(parent, name)
            if _is_temporary(name) or path.is_symlink() or not path.is_file():
                continue
            if not name.isprintable():
                raise StageError(f"{path.parent}: the file name {name!r} holds characters that cannot be recorded")
            yield path


def time_id(time: datetime) -> str:
    """Return a time in UTC to the millisecond, whose text sorts as the time does."""
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M%S") + f"{time.microsecond // 1000:03d}"


def is_safe_path(path: str) -> bool:
    """Return whether a path of a listing stays below the folder that it is joined to, on any system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and "\\" not in path and ":" not in path and ".." not in parts


def _is_temporary(name: str) -> bool:
    return name.endswith(".part") or name in ("__pycache__", ".cache")


def _is_short(paths: list[Path]) -> bool | None:
    """Return True for work without a bar; None leaves it to whether there is a terminal."""
    return True if len(paths) < 100 else None


def _stamp(state: os.stat_result) -> str:
    """Return what changes with a file's content: its change time too, which cannot be set back."""
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _with_table(path)
    except sqlite3.DatabaseError:
        path.unlink()
        return _with_table(path)


def _with_table(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60.0)
    database.execute(_TABLE)
    return database
