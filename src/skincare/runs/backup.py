"""Backup of a root folder to any fsspec storage, and back: incremental, content-addressed, safe against a kill.

A snapshot is written after all its objects, so that one that exists is complete. An object with another size than its
file is written again. Backups of several roots may share a location.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tqdm import tqdm

from skincare.errors import StageError
from skincare.files import replacing
from skincare.paths import Layout
from skincare.runs.backup_store import BackupStore
from skincare.runs.content import ContentHasher, FileEntry, files_below, sha256_of

# What is backed up, by the name of the part: everything that costs time or cannot be made again.
PARTS: Final = {
    "dataset": ("csv_data", "product_images", "clean_dataset", "exports", "labels.toml"),
    "models": ("models/finetuned", "models/exported"),
    "logs": ("log", "plots", "report.md", "report.html"),
}
_N_TRANSFERS: Final = 8
# So many failures without a success are one failure of the storage.
_N_FAILURES: Final = 20


@dataclass(frozen=True)
class Transfer:
    """Files of a backup or restore: `n_moved` were transferred, `n_present` were there, `failures` path -> reason."""

    snapshot: str
    n_files: int
    n_moved: int
    n_present: int
    n_bytes_moved: int
    failures: dict[str, str]


def backup(layout: Layout, store: BackupStore, parts: Sequence[str] = tuple(PARTS)) -> Transfer:
    """Copy what the store does not have yet, then write a snapshot.

    A file that keeps changing is a failure, and then no snapshot is written; what was copied serves the next backup.
    """
    with ContentHasher(layout) as hasher:
        entries = hasher.entries(sorted(_files_of(layout, parts)), layout.root)
        sizes = store.sizes()
        needed = {one.sha256: one for one in entries if sizes.get(one.sha256) != one.n_bytes}
        n_stored, failures = 0, dict[str, str]()
        for entry, reason in _in_threads(lambda one: _put(layout, store, one), list(needed.values()), "storing"):
            if not reason and hasher.file(layout.root / entry.path).sha256 != entry.sha256:
                # What was stored may be of the new content.
                store.remove_objects([entry.sha256])
                reason = "changed while it was copied: back up again when no stage is running"
            n_stored += not reason
            if reason:
                failures[entry.path] = reason
            if not n_stored and len(failures) >= _N_FAILURES:
                raise StageError(f"nothing can be stored: {reason}")
    if failures:
        return Transfer("", len(entries), n_stored, len(entries) - len(needed), 0, failures)
    os.sync()
    snapshot = store.write_snapshot(entries, parts, datetime.now(UTC))
    n_bytes = sum(one.n_bytes for one in needed.values())
    return Transfer(snapshot, len(entries), len(needed), len(entries) - len(needed), n_bytes, {})


def restore(layout: Layout, store: BackupStore, snapshot: str = "", *, overwrite: bool = False) -> Transfer:
    """Copy the files of a snapshot below the root; equal files are left, and other files of the root are not touched.

    Raises StageError, before anything is written, where a file has other content and `overwrite` is not given, or
    where a symbolic link would lead out of the root.
    """
    snapshot, entries = store.read_snapshot(snapshot)
    missing, conflicts = [], []
    for entry in tqdm(entries, "comparing", unit="file", disable=True if len(entries) < 100 else None):
        path = layout.root / entry.path
        if not path.parent.resolve().is_relative_to(layout.root.resolve()):
            raise StageError(f"{path}: a symbolic link leads out of {layout.root}; nothing was restored")
        if path.is_symlink() or path.exists():
            is_equal = path.is_file() and path.stat().st_size == entry.n_bytes and sha256_of(path) == entry.sha256
            if is_equal:
                continue
            conflicts.append(entry.path)
        missing.append(entry)
    if conflicts and not overwrite:
        raise StageError(
            f"{len(conflicts)} files have other content than in the snapshot ({', '.join(conflicts[:5])}); nothing was "
            "restored. Restore into an empty folder with --root, or replace them with --overwrite."
        )
    failures = {
        entry.path: reason
        for entry, reason in _in_threads(lambda one: _get(layout, store, one), missing, "restoring")
        if reason
    }
    os.sync()
    n_moved = len(missing) - len(failures)
    n_bytes = sum(one.n_bytes for one in missing if one.path not in failures)
    return Transfer(snapshot, len(entries), n_moved, len(entries) - len(missing), n_bytes, failures)


def damaged_objects(store: BackupStore, snapshot: str = "") -> tuple[str, int, list[str]]:
    """Read all objects of a snapshot; return its id, the number of its files and those whose object is damaged."""
    snapshot, entries = store.read_snapshot(snapshot)
    first = {one.sha256: one for one in entries}
    results = dict(_in_threads(lambda one: _verify(store, one), list(first.values()), "verifying"))
    bad = {entry.sha256 for entry, reason in results.items() if reason}
    return snapshot, len(entries), [one.path for one in entries if one.sha256 in bad]


def prune(store: BackupStore, keep: int, grace: timedelta, *, is_dry: bool) -> tuple[list[str], int]:
    """Remove all but the newest snapshots and the objects that none of the kept ones names.

    Returns the removed snapshots and the number of removed objects; with `is_dry` nothing is removed.
    """
    ids = store.snapshots()
    old = ids[: max(0, len(ids) - keep)]
    used = {entry.sha256 for one in ids[len(old) :] for entry in store.read_snapshot(one)[1]}
    unused = store.unused_objects(used, datetime.now(UTC), grace)
    if not is_dry:
        # Snapshots first: one that is there must be complete.
        for one in old:
            store.remove_snapshot(one)
        store.remove_objects(unused)
    return old, len(unused)


def _files_of(layout: Layout, parts: Iterable[str]) -> Iterator[Path]:
    for name in (name for part in parts for name in PARTS[part]):
        path = layout.root / name
        if path.is_dir():
            yield from files_below(path)
        elif path.is_file():
            yield path


def _put(layout: Layout, store: BackupStore, entry: FileEntry) -> str:
    """Store one file; return why it could not be, or nothing."""
    try:
        store.put(layout.root / entry.path, entry.sha256)
    except StageError as error:
        return str(error)
    return ""


def _verify(store: BackupStore, entry: FileEntry) -> str:
    """Return what is wrong with an object, or nothing."""
    try:
        for _ in store.read(entry.sha256):
            pass
    except StageError as error:
        return str(error)
    return ""


def _get(layout: Layout, store: BackupStore, entry: FileEntry) -> str:
    """Restore one file; return why it could not be, or nothing."""
    try:
        with replacing(layout.root / entry.path, is_durable=False) as temporary, temporary.open("wb") as file:
            for block in store.read(entry.sha256):
                file.write(block)
    except (OSError, StageError) as error:
        return str(error)
    return ""


def _in_threads(
    work: Callable[[FileEntry], str], entries: Sequence[FileEntry], name: str
) -> Iterator[tuple[FileEntry, str]]:
    """Yield each entry with the result of `work`; an interrupt waits only for the transfers that are running."""
    pool = ThreadPoolExecutor(_N_TRANSFERS)
    try:
        results = zip(entries, pool.map(work, entries), strict=True)
        yield from tqdm(results, name, len(entries), unit="file", disable=True if len(entries) < 100 else None)
    finally:
        pool.shutdown(cancel_futures=True)
