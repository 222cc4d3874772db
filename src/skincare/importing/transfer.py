"""One image from the source into product_images/: read, decoded, then linked, copied or re-encoded.

A JPEG that all decoders render equally (upright, RGB, no profile that changes colours) keeps its bytes; any other image
is decoded by `skincare.images.decode` and written as JPEG.
"""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from skincare import images
from skincare.files import replacing
from skincare.images import BrokenImageError
from skincare.importing.shard_source import cell_bytes

# About ten times the size of photos from phones and shops; a larger file is a video or an error.
MAX_BYTES: Final = 64_000_000


@dataclass(frozen=True)
class Job:
    """One image to transfer and its destination; row and column are those of `Entry`."""

    place: str
    path: Path
    row: int
    column: str
    target: Path
    stamp: str
    is_linked: bool


@dataclass(frozen=True)
class Outcome:
    """The written file, or the reason why there is none."""

    width: int = 0
    height: int = 0
    n_bytes: int = 0
    sha256: str = ""
    reason: str = ""
    detail: str = ""


def stamp_of(path: Path, row: int) -> str:
    """Return a stamp that changes if the bytes of an entry may have changed; raises OSError."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {row}"


def transfer(job: Job) -> Outcome:
    """Write one image atomically; never raises because of the content of the source."""
    try:
        content = _read(job)
    except OSError as error:
        return Outcome(reason="unreadable_file", detail=error.strerror or "")
    except _RefusedError as error:
        return Outcome(reason=str(error.args[0]), detail=str(error.args[1]))
    try:
        decoded = images.decode_with_notes(content)
    except BrokenImageError as error:
        return Outcome(reason=error.reason, detail=str(error).partition(": ")[2])
    height, width = decoded.pixels.shape[:2]
    if images.is_plain_jpeg(content):
        _keep(job, content)
    else:
        content = images.encode_jpeg(Image.fromarray(decoded.pixels))
        _write(job.target, content)
    return Outcome(width, height, len(content), hashlib.sha256(content).hexdigest())


def not_survived(job: Job) -> Outcome:
    """Return the outcome of an image that crashes its decoder, or takes longer than a minute."""
    return Outcome(reason="kills_decoder", detail=job.path.name)


class _RefusedError(Exception):
    """Reason and detail of an entry that is not read."""


def _read(job: Job) -> bytes:
    if job.row >= 0:
        try:
            content = cell_bytes(job.path, job.row, job.column)
        except ValueError as error:
            raise _RefusedError("no_image", str(error)) from error
        return _bounded(content)
    # Does not block if the file was replaced by a pipe.
    descriptor = os.open(job.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _RefusedError("not_a_file", "a device, pipe or socket")
        return _bounded(file.read(MAX_BYTES + 1))


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise _RefusedError("too_large", f"more than {MAX_BYTES:,} bytes")
    return content


def _keep(job: Job, content: bytes) -> None:
    """Copy a file unchanged, or hard-link it if requested and supported by the file system."""
    if job.is_linked and job.row < 0:
        try:
            _link(job.path, job.target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
        else:
            return
    _write(job.target, content)


def _link(source: Path, target: Path) -> None:
    with replacing(target, is_durable=False) as temporary:
        os.link(source, temporary, follow_symlinks=True)


def _write(target: Path, content: bytes) -> None:
    # One `os.sync` after the last file is faster than an fsync of each.
    with replacing(target, is_durable=False) as temporary:
        temporary.write_bytes(content)
