"""What a stage leaves behind for people and for the report: a log file and `log/<stage>.json`."""

import dataclasses
import importlib.metadata
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from skincare.files import write_json
from skincare.paths import REPOSITORY, Layout

# Libraries whose version can change a result.
_VERSIONED: Final = ("torch", "torchvision", "transformers", "qwen-vl-utils", "pillow", "opencv-python-headless",
                     "numpy", "scikit-learn", "requests", "beautifulsoup4", "lxml")  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What a stage did: `counts` add up to what it saw, `results` are figures that the report shows.

    exit_code: of a stage that has done its work and whose verdict is bad.
    """

    headline: str
    counts: Mapping[str, int] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0


def counts_text(counts: Mapping[str, int], leave_out: str = "", *, empty: str = "none") -> str:
    """Return counts by name as text, without one of the names: `corrupt 1, near_duplicate 2`."""
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if name != leave_out) or empty


class _ProgressSafeHandler(logging.Handler):
    """Write records above a tqdm bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def is_writer() -> bool:
    """Tell whether this process is the one of a distributed run that writes; alone, it is."""
    return os.environ.get("RANK", "0") == "0"


def setup(stage: str, layout: Layout, *, keep: bool = True) -> None:
    """Send log records to the terminal and, where they are kept, with times to the stage's log file."""
    if not is_writer():
        logging.basicConfig(level=logging.ERROR, handlers=[_ProgressSafeHandler()], force=True)
        return
    # A full disk must not bury the stage's own message under a traceback for each line that is not logged.
    logging.raiseExceptions = False
    terminal = _ProgressSafeHandler()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if keep:
        path = layout.stage_log(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Appended to: a start that fails must not take the log of what an earlier run did.
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    # They log every connection and every font at INFO, which hides the stage's own lines.
    for noisy in ("urllib3", "httpx", "matplotlib", "PIL", "filelock", "fontTools", "torch", "botocore", "aiobotocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns at its import about optional CPU kernels, and at every 8-bit layer of every pass that inputs are cast.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def remove_summary(stage: str, layout: Layout) -> None:
    """Remove `log/<stage>.json`: it speaks of results that are about to be replaced.

    A stage calls this before it first changes what an earlier run of it has made, and not before that.
    """
    if is_writer():
        layout.summary(stage).unlink(missing_ok=True)


def write_summary(stage: str, layout: Layout, config: Any, summary: Summary, started: datetime) -> None:
    """Write `log/<stage>.json`; its presence means that the stage is done."""
    write_json(
        layout.summary(stage),
        {
            "stage": stage,
            "headline": summary.headline,
            "counts": dict(summary.counts),
            "results": to_plain(summary.results),
            "config": to_plain(config),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
            **environment(),
        },
    )


def environment() -> dict[str, Any]:
    """Return what the run stood on: commit, command, versions and machine."""
    return {
        "git_commit": git_commit(),
        "command": command(),
        "python": platform.python_version(),
        "versions": {name: version for name in _VERSIONED if (version := _version(name))},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def command(leave_out: Collection[str] = (), add: str = "") -> str:
    """Return the command line of this process, with other flags if so wanted."""
    words = [_repository_relative(word) for word in sys.argv if word not in leave_out]
    words += [add] if add and add not in words else []
    return shlex.join(["python", *words])


def git_commit() -> str:
    """Return the short commit of the code, with `+` when the work tree differs from it; empty outside git."""
    try:
        described = subprocess.run(
            ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def to_plain(value: Any) -> Any:
    """Turn a config (dataclasses, paths, tuples) into what JSON holds; paths in the repository become relative."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    # Names of models are text, but may be folders.
    return _repository_relative(str(value)) if isinstance(value, Path | str) else value


def _repository_relative(text: str) -> str:
    path = Path(text)
    if path.is_absolute() and path.is_relative_to(REPOSITORY):
        return path.relative_to(REPOSITORY).as_posix()
    return text


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
