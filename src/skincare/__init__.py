"""What the stages in src/ share; see docs/architecture.md."""

import sys
from pathlib import Path
from types import TracebackType


def _report_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Replace the traceback of Ctrl-C by one line; Python then ends with the exit status of SIGINT."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted before the start; nothing was changed\n")
    else:
        sys.__excepthook__(kind, error, trace)


# For stages alone: a program that imports this package keeps its hook. From `stage.main` on, the stage itself handles
# the interruption; importing its modules takes a second or more before that.
if Path(sys.argv[0] if sys.argv else "").resolve().parent == Path(__file__).resolve().parents[1]:
    sys.excepthook = _report_interrupt
