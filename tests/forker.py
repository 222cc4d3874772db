"""Processes to kill: a stage started as often as asked, by forks of one process that has imported what it needs."""

import os
import subprocess
import sys

from skincare.paths import REPOSITORY

_LOOP = """
import os, sys
{imports}
print(flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = ["{name}.py", *line.split()]
        try:
            {name}.main()
        except SystemExit as end:
            os._exit(end.code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forker:
    """Starts the stage `name` with a command line; `imports` are more lines to run once."""

    def __init__(self, name: str, imports: str = "") -> None:
        program = _LOOP.format(name=name, imports=f"import {name}\n{imports}")
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        )  # fmt: skip
        self._process.stdout.readline()  # it has imported what it needs

    def start(self, *options: object) -> int:
        """Start a process with these options; return its id."""
        self._process.stdin.write(" ".join(map(str, options)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def exit_code(self) -> int:
        """Wait for the process that was started last."""
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the one that forks."""
        self._process.stdin.close()
        self._process.wait(timeout=60)
