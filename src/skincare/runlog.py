"""The records of a stage: its log file, and the summary `log/<stage>.json` for the report."""

import dataclasses
import importlib.metadata
import json
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

from skincare.errors import MissingInputError, StageError
from skincare.files import write_json
from skincare.paths import REPOSITORY, Layout

# Libraries whose version can change a result.
_VERSIONED: Final = ("torch", "torchvision", "transformers", "qwen-vl-utils", "pillow", "opencv-python-headless",
                     "numpy", "scikit-learn", "requests", "beautifulsoup4", "lxml")  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """The outcome of a stage: `counts` add up to its inputs, `results` are the numbers that the report shows.

    exit_code: not 0 for a completed stage whose verdict is negative.
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
    """Return whether this process writes files: the first of a distributed run, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def setup(stage: str, layout: Layout, *, keep: bool = True) -> None:
    """Send log records to the terminal and, with `keep`, with timestamps to the stage's log file."""
    if not is_writer():
        logging.basicConfig(level=logging.ERROR, handlers=[_ProgressSafeHandler()], force=True)
        return
    # On a full disk, logging would print a traceback for every line and hide the stage's own message.
    logging.raiseExceptions = False
    terminal = _ProgressSafeHandler()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if keep:
        path = layout.stage_log(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Append: a failed start must not delete the log of an earlier run.
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    # These libraries log every connection and font at INFO, which hides the stage's own lines.
    for noisy in ("urllib3", "httpx", "matplotlib", "PIL", "filelock", "fontTools", "torch", "botocore", "aiobotocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # bitsandbytes warns about optional CPU kernels on import, and about casts in every pass of every 8-bit layer.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def remove_summary(stage: str, layout: Layout) -> None:
    """Remove `log/<stage>.json`, whose results are about to be replaced.

    A stage calls this immediately before it first changes the results of an earlier run.
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


def last_training_run(layout: Layout) -> str:
    """Return the name of the last run that finetune.py finished.

    Raises MissingInputError if there is none, StageError for a damaged summary.
    """
    path = layout.summary("finetune")
    if not path.is_file():
        raise MissingInputError("finished run", path, "Run `python src/finetune.py` first.")
    try:
        name = str(json.loads(path.read_text(encoding="utf-8"))["results"]["run"])
        if not name or Path(name).name != name:
            raise ValueError(f"{name[:100]!r} is no name of a run")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StageError(f"{path}: names no finished run ({error!r}); run `python src/finetune.py`") from error
    return name


def environment() -> dict[str, Any]:
    """Return the environment of the run: commit, command, versions and machine."""
    return {
        "git_commit": git_commit(),
        "command": command(),
        "python": platform.python_version(),
        "versions": {name: version for name in _VERSIONED if (version := _version(name))},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def command(leave_out: Collection[str] = (), add: str = "") -> str:
    """Return the command line of this process without the words of `leave_out`, and with `add`."""
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
    """Convert a config (dataclasses, paths, tuples) to JSON types; paths in the repository become relative."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    # Model names are strings, but may be folders.
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
