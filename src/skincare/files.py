"""Atomic file writes: a reader sees the old or the new content, never a partial one."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


def check_writable(path: Path) -> None:
    """Create the parent folder; raises OSError if `path` is a folder or a device, which must not be replaced."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file that can be replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} cannot be written to")


@contextmanager
def replacing(path: Path, *, is_durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` that replaces it when the block ends without an exception.

    Unless `is_durable`, its content may be lost in a power failure before the next `os.sync`.
    """
    check_writable(path)
    temporary = path.parent / f".{uuid4().hex}.part"
    try:
        yield temporary
        if is_durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `path` and its contents when the block ends without an exception."""
    building, old = (path.parent / f".{uuid4().hex}.part" for _ in range(2))
    building.mkdir(parents=True)
    try:
        yield building
        if path.exists():
            path.rename(old)
        building.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def copy_if_changed(source: Path, target: Path) -> None:
    """Copy a file with its modification time, unless the target already has equal size and time.

    A copy that a power failure truncated has another size and is copied again. Files are not synced one by one: one
    `os.sync` after all copies is faster.
    """
    status = source.stat()
    if target.is_file():
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return
    with replacing(target, is_durable=False) as temporary:
        shutil.copyfile(source, temporary)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically, creating the parent folder."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically with `\\n` line endings."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON; NaN, which is not valid JSON, raises ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
