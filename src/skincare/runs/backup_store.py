"""The storage of backups: objects under their content hash and snapshots, in any place that fsspec reaches.

    <location>/objects/ab/<sha256>              the bytes of each distinct file, once
    <location>/snapshots/<time>-<digest>.json   the files of one backup: path, size, content hash

A snapshot's name holds the digest of its content, and an object's name is that of its bytes: torn and altered ones are
recognised.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec

from skincare.errors import MissingInputError, StageError
from skincare.runs.content import FileEntry, is_safe_path, time_id

_FORMAT: Final = 1
_SNAPSHOT: Final = re.compile(r"(\d{8}T\d{9}-[0-9a-f]{12})\.json")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# In these, a file appears whole or not at all; elsewhere it is written under another name first.
_OBJECT_STORES: Final = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}


class BackupStore:
    """The objects and snapshots at one location, such as a folder, s3://bucket/prefix or sftp://host/folder."""

    def __init__(self, location: str) -> None:
        self.name = shown(location)
        with self._errors():
            self._files, self._path = fsspec.core.url_to_fs(location)
        protocols = self._files.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._is_object_store = bool(names & _OBJECT_STORES)
        self._is_local = "file" in names

    def snapshots(self) -> list[str]:
        """Return the ids of the snapshots, oldest first."""
        names = (path.rsplit("/", 1)[-1] for path in self._find("snapshots"))
        return sorted(match[1] for name in names if (match := _SNAPSHOT.fullmatch(name)))

    def read_snapshot(self, snapshot: str = "") -> tuple[str, list[FileEntry]]:
        """Return the id and files of a snapshot, by default of the newest; raises StageError for a damaged one."""
        ids = self.snapshots()
        if not ids or (snapshot and snapshot not in ids):
            raise MissingInputError(
                f"snapshot {snapshot}".strip(), self.name, f"`python src/runs.py list {self.name}` shows what is there."
            )
        snapshot = snapshot or ids[-1]
        with self._errors():
            content = self._files.cat_file(f"{self._path}/snapshots/{snapshot}.json")
        try:
            if hashlib.sha256(content).hexdigest()[:12] != snapshot.rsplit("-", 1)[1]:
                raise StageError(f"snapshot {snapshot} is damaged: its content does not fit its name")
            value = json.loads(content)
            entries = [FileEntry(one["sha256"], int(one["n_bytes"]), one["path"]) for one in value["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"snapshot {snapshot} cannot be read: {error}") from error
        for entry in entries:
            if not is_safe_path(entry.path) or not _SHA256.fullmatch(entry.sha256):
                raise StageError(f"snapshot {snapshot} is refused: it names {entry.path!r}")
        return snapshot, entries

    def write_snapshot(self, entries: Sequence[FileEntry], parts: Sequence[str], now: datetime) -> str:
        """Write a snapshot of objects that are all there; return its id."""
        files = [{"path": one.path, "sha256": one.sha256, "n_bytes": one.n_bytes} for one in entries]
        value = {"format": _FORMAT, "created": now.isoformat(timespec="seconds"), "parts": list(parts), "files": files}
        content = json.dumps(value, indent=1).encode()
        snapshot = f"{time_id(now)}-{hashlib.sha256(content).hexdigest()[:12]}"
        self._write(f"snapshots/{snapshot}.json", lambda target: self._files.pipe_file(target, content))
        return snapshot

    def sizes(self) -> dict[str, int]:
        """Return the size of each object by content hash."""
        return {path.rsplit("/", 1)[-1]: int(info["size"]) for path, info in self._find("objects").items()}

    def put(self, source: Path, sha256: str) -> None:
        """Store a file as an object."""
        self._write(_object(sha256), lambda target: self._files.put_file(str(source), target))

    def read(self, sha256: str) -> Iterator[bytes]:
        """Yield an object in blocks; raises StageError if it is absent or does not hold the bytes of its name."""
        digest = hashlib.sha256()
        with self._errors(), self._files.open(f"{self._path}/{_object(sha256)}", "rb") as source:
            while block := source.read(1 << 20):
                digest.update(block)
                yield block
        if digest.hexdigest() != sha256:
            raise StageError(f"{self.name}: object {sha256[:12]} is damaged")

    def remove_objects(self, unused: Iterable[str]) -> None:
        """Remove objects."""
        with self._errors():
            for name in unused:
                self._files.rm_file(f"{self._path}/{_object(name)}")

    def remove_snapshot(self, snapshot: str) -> None:
        """Remove a snapshot; its objects stay."""
        with self._errors():
            self._files.rm_file(f"{self._path}/snapshots/{snapshot}.json")

    def unused_objects(self, used: set[str], now: datetime, grace: timedelta) -> list[str]:
        """Return the objects and torn uploads that no snapshot names and that are older than `grace`.

        A younger one may belong to a backup that is running and has not written its snapshot yet.
        """
        found = []
        for path, info in self._find("objects").items():
            changed = _modified(info)
            is_old = changed is None or now - changed > grace
            if path.rsplit("/", 1)[-1] not in used and is_old:
                found.append(path.rsplit("/", 1)[-1])
        return sorted(found)

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        with self._errors():
            self._files.invalidate_cache()
            try:
                return dict(self._files.find(f"{self._path}/{folder}", detail=True))
            except FileNotFoundError:
                return {}

    def _write(self, name: str, write: Callable[[str], object]) -> None:
        target = f"{self._path}/{name}"
        with self._errors():
            if self._is_object_store:
                write(target)
                return
            self._files.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            # Next to its target, where `unused_objects` finds what a kill left behind.
            temporary = f"{target}.{uuid4().hex}.part"
            write(temporary)
            if self._is_local:
                _flush(temporary)
            self._files.mv(temporary, target)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn any failure of the storage into a StageError: its libraries have exceptions of their own."""
        try:
            yield
        except (StageError, GeneratorExit):
            raise
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            raise StageError(f"{self.name}: {type(error).__name__}: {first_line[:200]}") from error


def shown(location: str) -> str:
    """Return a location without the user and password that it may hold."""
    parts = urlsplit(location)
    return parts._replace(netloc=f"***@{parts.netloc.rsplit('@', 1)[1]}").geturl() if "@" in parts.netloc else location


def _object(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"


def _flush(path: str) -> None:
    """Write a local file through to the disk: its name may be on it before its bytes, with the right size."""
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


def _modified(info: dict[str, Any]) -> datetime | None:
    """Return when an object was written, as far as the storage says."""
    for name in ("LastModified", "mtime", "updated", "last_modified", "created"):
        value = info.get(name)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None
