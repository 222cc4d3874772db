"""Run the GPU tests and write their results after each test, so that a time limit loses only the running one.

Out: tests.json in the given folder: name, outcome, seconds and, unless passed, the reason.
Command: python benchmarks/gpu/checks.py FOLDER
Time: under two minutes on a GPU.
"""

import sys
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "src"))

import pytest

from skincare.files import write_json


class Recorder:
    """A pytest plugin that writes the results after every test."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._record(report.nodeid, {"outcome": "failed", "seconds": 0.0, "reason": _last_line(report)})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._record(nodeid, {"outcome": "not finished", "seconds": 0.0, "reason": ""})

    def pytest_runtest_logreport(self, report: Any) -> None:
        row = self.tests[report.nodeid]
        row["seconds"] = round(row["seconds"] + report.duration, 2)
        if report.when == "call" or not report.passed:
            row["outcome"] = report.outcome
        if report.skipped:
            row["reason"] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            row["reason"] = _last_line(report)
        self._record(report.nodeid, row)

    def _record(self, nodeid: str, row: dict[str, Any]) -> None:
        self.tests[nodeid] = row
        write_json(self.out, {"tests": [{"name": name, **one} for name, one in self.tests.items()]})


def _last_line(report: Any) -> str:
    lines = report.longreprtext.strip().splitlines() or ["no reason was reported"]
    return str(lines[-1])[:300]


def main() -> int:
    """Run the tests; return pytest's exit code."""
    # A file that cannot be imported with the machine's libraries stops no other.
    options = ["-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--rootdir={REPOSITORY}"]
    command = [str(REPOSITORY / "tests" / "gpu"), *options]
    return int(pytest.main(command, plugins=[Recorder(Path(sys.argv[1]) / "tests.json")]))


if __name__ == "__main__":
    sys.exit(main())
