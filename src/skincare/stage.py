"""The common part of every stage: command line, log, exit code, summary.

A stage script defines a frozen dataclass `Config(StageConfig)` (its whole command line) and
`run(config, layout) -> Summary`, and ends with

    def main() -> None:
        stage.main("clean", Config, run)

Exit codes: 0 done, 1 failed, 2 an input is missing (the message names it and its remedy), 130 interrupted.
"""

import logging
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import ClassVar, Final, NoReturn, TypeVar

import tyro

from skincare import cache_folder, leftovers, runlog
from skincare.errors import StageError
from skincare.paths import REPOSITORY, Layout
from skincare.runlog import Summary
from skincare.runs import manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The options of every stage."""

    root: Path = REPOSITORY
    """Folder that holds csv_data/, product_images/, clean_dataset/, log/ and plots/."""
    labels: Path | None = None
    """File of the labels; labels.toml in the root if left out, else the 14 skincare categories (docs/labels.md)."""
    clear_cache: bool = False
    """Delete .cache/ first: vision features, fetched images, predictions, OCR, quality metrics."""
    cache_gb: float = 100.0
    """Size limit of .cache/ in GB; after the stage, the oldest vision features and images above it are deleted."""

    # Whether a run resumes after an interruption or starts again from the beginning.
    resumes: ClassVar[bool] = True

    @property
    def layout(self) -> Layout:
        """Return the layout below the root."""
        return Layout(self.root.resolve(), self.labels and self.labels.resolve())

    @property
    def writes_summary(self) -> bool:
        """Return whether the run writes a log and a summary; false for options that only print."""
        return True

    def resume_hint(self, layout: Layout) -> str:
        """Return how to continue after an interruption, as part of the log line."""
        del layout
        if not self.resumes:
            return f"nothing was changed; start again with `{runlog.command()}`"
        return f"continue with `{runlog.command()}`"


ConfigT = TypeVar("ConfigT", bound=StageConfig)


def main(stage: str, config_type: type[ConfigT], run: Callable[[ConfigT, Layout], Summary]) -> NoReturn:
    """Parse the command line, run the stage, write its summary and exit."""
    description = help_text(sys.modules["__main__"].__doc__ or "")
    config = tyro.cli(config_type, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(execute(stage, config, config.layout, run))


# The fields of a stage's docstring.
_FIELD: Final = re.compile(r"(?:- )?(In|Out|Command|Time): ")


def help_text(docstring: str) -> str:
    """Return a stage's docstring as its `--help` shows it.

    tyro joins the lines of a paragraph, unless a line begins with a non-letter. This inserts a blank line before each
    field (In, Out, Command, Time) and after each indented list, so that they remain separate paragraphs.
    """
    lines: list[str] = []
    for line in docstring.splitlines():
        after_list = bool(lines) and lines[-1].startswith(" ") and not line.startswith(" ")
        if lines and lines[-1] and line and (_FIELD.match(line) or after_list):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def execute(stage: str, config: ConfigT, layout: Layout, run: Callable[[ConfigT, Layout], Summary]) -> int:
    """Run one stage with its log and summary; return the exit code."""
    started = datetime.now(UTC)
    try:
        runlog.setup(stage, layout, keep=config.writes_summary)
        leaves_summary = config.writes_summary and runlog.is_writer()
        if config.clear_cache and runlog.is_writer():
            cache_folder.clear(layout)
        summary = run(config, layout)
        if runlog.is_writer():
            cache_folder.trim(layout, config.cache_gb * 1e9)
            leftovers.remove(layout)
        if leaves_summary:
            runlog.write_summary(stage, layout, config, summary, started)
            _record(stage, layout, config, summary, started)
    except StageError as error:
        logger.error("%s: %s", stage, error)
        return error.exit_code
    except OSError as error:
        logger.error("%s: %s", stage, error)
        return 1
    except KeyboardInterrupt:
        logger.error("%s: interrupted; %s", stage, config.resume_hint(layout))
        return 130
    seconds = (datetime.now(UTC) - started).total_seconds()
    written = f"; {layout.summary(stage)}" if leaves_summary else ""
    logger.info("%s: %s in %.0f s%s", stage, summary.headline, seconds, written)
    return summary.exit_code


def _record(stage: str, layout: Layout, config: StageConfig, summary: Summary, started: datetime) -> None:
    """Write the run's manifest; a failure is only logged, since the stage is complete."""
    try:
        manifest.record(stage, layout, config, summary, started)
    except (StageError, OSError) as error:
        logger.warning("%s: no manifest was written: %s", stage, error)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM like Ctrl-C, so that the stage can save its state."""
    raise KeyboardInterrupt
