"""A lock against two processes that train under one run name.

The lock is a `flock` on log/finetune/.locks/<run>.json, which holds process id, host and start time of the owner. The
system releases it when the process ends in any way, so that a file left by a killed process locks nothing.
"""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from skincare.errors import StageError

logger = logging.getLogger(__name__)


class RunLockedError(StageError):
    """Another process trains under this name."""


@contextmanager
def locked(path: Path, run: str) -> Iterator[None]:
    """Hold the lock of a run for the block; raise RunLockedError with the owner if another process holds it.

    On a file system without locks, the run starts without one and a warning is logged.
    """
    descriptor = _acquire(path, run)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _acquire(path: Path, run: str) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise RunLockedError(f"Run {run!r} is being trained by {owner}. Choose another name with --run.") from None
        except OSError as error:
            os.close(descriptor)
            logger.warning("%s: this file system has no locks (%s); start no second run %s", path, error, run)
            return None
        # The previous owner may have removed the file before it was locked.
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)
    _take_over(descriptor, run)
    return descriptor


def _take_over(descriptor: int, run: str) -> None:
    """Write this process into the lock's file; log the owner that was killed without removing it."""
    if os.fstat(descriptor).st_size:
        logger.info("run %s: taking over the lock of %s, which has ended", run, _owner(descriptor))
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": datetime.now(UTC).isoformat("T", "seconds")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 10_000, 0))
        return f"process {owner['pid']} on {owner['host']}, started {owner['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
