"""The tests that need a GPU, with a JSON that is complete up to the test that runs when time is up.

Out: tests.json in the folder that is named: name, outcome, seconds and, where it did not pass, why.
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
    """Writes what is known whenever a test is over."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._note(nodeid, {"outcome": "not finished", "seconds": 0.0, "reason": ""})

    def pytest_runtest_logreport(self, report: Any) -> None:
        row = self.tests[report.nodeid]
        row["seconds"] = round(row["seconds"] + report.duration, 2)
        if report.when == "call" or not report.passed:
            row["outcome"] = report.outcome
        if report.skipped:
            row["reason"] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            row["reason"] = str(report.longreprtext.strip().splitlines()[-1])[:300]
        self._note(report.nodeid, row)

    def _note(self, nodeid: str, row: dict[str, Any]) -> None:
        self.tests[nodeid] = row
        write_json(self.out, {"tests": [{"name": name, **one} for name, one in self.tests.items()]})


def main() -> int:
    """Run them; return pytest's exit code."""
    command = [str(REPOSITORY / "tests" / "gpu"), f"--rootdir={REPOSITORY}", "-m", "gpu", "-p", "no:cacheprovider"]
    return int(pytest.main(command, plugins=[Recorder(Path(sys.argv[1]) / "tests.json")]))


if __name__ == "__main__":
    sys.exit(main())
