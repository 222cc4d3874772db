"""Mutation tests: break the pure modules one expression at a time with mutmut and count the mutants that tests catch.

Each mutant runs against the module's own test files only, without tests marked slow; `no_test` counts mutants that
none of them reaches. Messages of logs and errors are not mutated. `equivalent` counts survivors that differ from the
code only in `strict=`, `dtype=` or the case of an encoding's name; `kill_rate` excludes them. `n_mutants` counts all
mutants of a module, `n_run` those that ran before the time limit: all, or those with a number in --last-digits.

In: src/, tests/ (copied to .cache/mutation/, the checkout stays as it is).
Out: benchmarks/results/mutation.json (counts and the survivors' names) and a table; --show prints survivors as diffs.
Command: python benchmarks/mutation.py [--module urls.py] [--last-digits 37] [--minutes 30]
Time: 1 to 3 mutants per second and about 200 mutants per 100 lines; slower where tests import torch.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tyro

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src")]

from skincare.files import write_json

logger = logging.getLogger("mutation")

# Module below src/skincare -> its test files, without `test_` and `.py`.
MODULES: Final = {
    "cleaning/checks.py": "checks",
    "cleaning/hashes.py": "hashes near_duplicates",
    "cleaning/near_duplicates.py": "near_duplicates",
    "cleaning/duplicates.py": "clean",
    "cleaning/quality.py": "quality",
    "cleaning/thresholds.py": "thresholds",
    "cleaning/threshold_review.py": "threshold_review",
    "collecting/metadata.py": "metadata",
    "collecting/throttle.py": "throttle",
    "dataset/chat.py": "chat",
    "dataset/hints.py": "hints",
    "dataset/splitting.py": "splitting",
    "evaluation/calibration.py": "calibration fusion hierarchy",
    "evaluation/comparison.py": "comparison",
    "evaluation/confidence.py": "confidence",
    "evaluation/fusion.py": "fusion",
    "evaluation/hierarchy.py": "hierarchy",
    "evaluation/intervals.py": "intervals metrics comparison",
    "evaluation/map_overlap.py": "map_overlap",
    "evaluation/merging.py": "merging comparison",
    "evaluation/metrics.py": "metrics",
    "evaluation/name_baseline.py": "name_baseline",
    "evaluation/release_gate.py": "release_gate",
    "inference/answer_parser.py": "answer_parser answer_properties answer_kinds",
    "inference/mentions.py": "answer_parser answer_properties answer_kinds",
    "modeling/token_trie.py": "token_trie",
    "urls.py": "catalogue sources",
    "training/checkpoints.py": "training_recovery",
    "training/loop.py": "accumulation",
    "training/sampling.py": "sampling",
    "training/schedules.py": "schedules",
}
_COPIED: Final = ("src", "tests", "benchmarks", "docs", "models", "pyproject.toml", "README.md", "Makefile")
_NOT_MUTATED: Final = (r"logger\.", r"raise \w+\(")
# Defensive or redundant: a checked length, an implied type, the case of an encoding's name.
_NO_RESULT: Final = re.compile(r",? *(strict|dtype)=[\w.]+,?|(?i:utf-8|ascii|ignore)|, *(?=\))")
# Exit codes that mutmut records: pytest's, or its own (33: no test reaches the mutant; 36 and the others: a timeout).
_SURVIVED, _NO_TESTS, _TIMEOUTS = 0, (5, 33), (-24, 24, 36, 152, 255)


@dataclass(frozen=True)
class Config:
    """What to mutate, how much of it, and for how long."""

    module: tuple[str, ...] = ()
    """Modules below src/skincare, such as urls.py; all of the table if left out."""
    last_digits: str = "0123456789"
    """Run the mutants whose number ends in one of these digits: two digits make a sample of a fifth."""
    minutes: float = 30.0
    """Time limit of each module; what did not run by then is not counted."""
    run: str = "after"
    """Name of this run in the JSON; other runs and other modules that are recorded there stay."""
    show: bool = False
    """Print every survivor as a diff."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "mutation.json"
    """Where to write the JSON."""


def main() -> None:
    """Mutate each module, record the counts, print the survivors."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    for module in config.module or MODULES:
        if module not in MODULES:
            raise SystemExit(f"{module} is not one of {', '.join(MODULES)}")
        folder = REPOSITORY / ".cache" / "mutation" / module.removesuffix(".py").replace("/", ".")
        seconds = mutate(module, folder, config)
        counts = count(folder, module)
        result: dict[str, Any] = json.loads(config.out.read_text("utf-8")) if config.out.is_file() else {}
        result.setdefault(config.run, {})[module] = counts
        write_json(config.out, result)
        shown = {name: value for name, value in counts.items() if name != "survivors"}
        logger.info("%-32s %s, %d s", module, shown, seconds)
        for name in counts["survivors"] if config.show else ():
            logger.info("%s\n%s", name, "\n".join(_change(folder, name)))


def mutate(module: str, folder: Path, config: Config) -> float:
    """Run mutmut on a module in a fresh copy of the repository; return the seconds that it took."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    tests = [f"tests/test_{name}.py" for name in MODULES[module].split()]
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/skincare/{module}"],
        "also_copy": [name for name in _COPIED if name != "src"],
        "do_not_mutate_patterns": list(_NOT_MUTATED),
        "pytest_add_cli_args": ["-m", "not slow"],
        "pytest_add_cli_args_test_selection": tests,
        "use_git_change_detection": ["false"],
    }
    lines = [f"{name} =\n    " + "\n    ".join(values) for name, values in settings.items()]
    (folder / "setup.cfg").write_text("[mutmut]\n" + "\n".join(lines).replace("=\n    false", "= false") + "\n")
    prefix = "skincare." + module.removesuffix(".py").replace("/", ".")
    started = time.monotonic()
    done = _mutmut(
        folder, "run", "--max-children", "1", f"{prefix}.*__mutmut_*[{config.last_digits}]", limit_s=config.minutes * 60
    )
    (folder / "mutmut.log").write_text(done.stdout)
    return time.monotonic() - started


def count(folder: Path, module: str) -> dict[str, Any]:
    """Return the counts of a module's mutants by outcome, and the names of those that survived."""
    path = folder / "mutants" / "src" / "skincare" / f"{module}.meta"
    if not path.is_file():
        raise SystemExit(f"{module}: mutmut stopped early, see {folder / 'mutmut.log'}")
    codes: dict[str, int | None] = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
    outcomes = Counter(map(_outcome, codes.values()))
    n_run = len(codes) - outcomes["not_run"]
    alive = [
        name.removeprefix("skincare.") for name, code in codes.items() if _outcome(code) in ("survived", "no_test")
    ]
    survivors = [name for name in alive if not _is_equivalent(_change(folder, name))]
    n_killed, n_equivalent = outcomes["killed"] + outcomes["timeout"], len(alive) - len(survivors)
    return {
        "n_mutants": len(codes),
        "n_run": n_run,
        **{name: outcomes[name] for name in ("killed", "timeout", "survived", "no_test")},
        "equivalent": n_equivalent,
        "kill_rate": round(n_killed / (n_run - n_equivalent), 3) if n_run > n_equivalent else None,
        "survivors": survivors,
    }


def _change(folder: Path, name: str) -> list[str]:
    """Return the removed and the added lines of a mutant."""
    lines = _mutmut(folder, "show", f"skincare.{name}").stdout.splitlines()
    return [line for line in lines if re.match(r"[-+] ", line)]


def _is_equivalent(change: Sequence[str]) -> bool:
    """Return whether a mutant changes only what cannot change a result."""
    sides = [_NO_RESULT.sub("", "".join(line[1:] for line in change if line[0] == side)) for side in "-+"]
    return sides[0].replace(" ", "") == sides[1].replace(" ", "")


def _outcome(code: int | None) -> str:
    if code is None:
        return "not_run"
    if code == _SURVIVED:
        return "survived"
    return "no_test" if code in _NO_TESTS else "timeout" if code in _TIMEOUTS else "killed"


def _mutmut(folder: Path, *arguments: str, limit_s: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Run mutmut in a folder; one that exceeds the limit is interrupted and keeps what it has found."""
    command = ["timeout", "--signal=INT", "--kill-after=30", str(limit_s or 60), sys.executable, "-m", "mutmut"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
