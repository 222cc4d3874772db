"""Processes to kill: a stage started as often as asked, by forks of one process that has imported what it needs."""

import os
import subprocess
import sys

from skincare.paths import REPOSITORY

_LOOP = """
import os, sys
from pathlib import Path
from skincare import stage
{imports}
print(flush=True)
for line in sys.stdin:
    arguments = line.split()
    child = os.fork()
    if not child:
        config = {config}
        os._exit(stage.execute("{name}", config, config.layout, {name}.run))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forker:
    """Starts the stage `name`; `config` is the expression for its Config, from the strings in `arguments`."""

    def __init__(self, name: str, config: str, imports: str = "") -> None:
        program = _LOOP.format(name=name, config=config, imports=f"import {name}\n{imports}")
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        )  # fmt: skip
        self._process.stdout.readline()  # it has imported what it needs

    def start(self, *arguments: object) -> int:
        """Start a process; return its id."""
        self._process.stdin.write(" ".join(map(str, arguments)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def exit_code(self) -> int:
        """Wait for the process that was started last."""
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the one that forks."""
        self._process.stdin.close()
        self._process.wait(timeout=10)
