"""Every step of the GPU check runs on a CPU, and its figures are computed correctly."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skincare.paths import REPOSITORY

FOLDER = REPOSITORY / "benchmarks" / "gpu"
STEPS = ["environment", "finetune_speed", "profile", "tests", "evaluation_speed", "profile_compiled"]
# Where the steps' own modules are: those of the stages, of the tests and benchmarks, and the scripts next to them.
PLACES = [REPOSITORY / name for name in ("src", ".", "benchmarks", "benchmarks/gpu")]


@pytest.fixture
def load(monkeypatch):
    """Import a script of the benchmarks by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    return importlib.import_module


def run(out, *options, **environment):
    return subprocess.run(
        [str(FOLDER / "run.sh"), *options], capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(out), **environment},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TEST_GPU_CHECK"), reason="takes minutes: TEST_GPU_CHECK=1 runs it")
def test_every_step_runs_on_a_cpu_and_its_result_is_in_the_tables(tmp_path):
    found = run(tmp_path, "--tiny")
    log = (tmp_path / "run.log").read_text()
    assert found.returncode == 0, found.stdout + log
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == STEPS
    tests = json.loads((tmp_path / "tests.json").read_text())["tests"]
    assert {test["outcome"] for test in tests} == {"passed", "skipped"}
    assert all(test["reason"].startswith("needs a CUDA GPU") for test in tests if test["outcome"] == "skipped")
    training = json.loads((tmp_path / "finetune_speed.json").read_text())
    assert not any("error" in row for row in training["rows"] + training["largest"])
    assert {row["variant"]: row["batch_size"] for row in training["largest"]} == {
        "reference": 1, "trainer": 2, "sft_trainer": 2, "ours": 2, "ours_cached": 2,
    }  # fmt: skip
    shown = ("ours_cached", "batched", "head_cached", "aten::", "no GPU", "14 passed")
    assert not [word for word in shown if word not in found.stdout]
    assert len(list(tmp_path.iterdir())) <= 8, "a job queue may return few files"


def interpreter(tmp_path, *cases):
    """Write a script that stands for the interpreter; cases: what it does for arguments that contain a text."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in ' + " ".join(f"*{text}*) {work};;" for text, work in cases) + " esac\n")
    python.chmod(0o755)
    return str(python)


def test_a_failing_step_is_recorded_and_stops_no_other(tmp_path):
    python = interpreter(tmp_path, ("environment.py", "exit 3"), ("table.py", "echo tables"))
    found = run(tmp_path / "out", "--tiny", PYTHON=python)
    steps = [json.loads(line) for line in (tmp_path / "out" / "steps.jsonl").read_text().splitlines()]
    assert [(step["step"], step["exit_code"]) for step in steps] == [(name, 3 * (name == STEPS[0])) for name in STEPS]
    assert found.returncode == 1
    assert "tables" in found.stdout


@pytest.mark.parametrize(("budget", "longest", "code"), [("4", 20, 0), ("0", 0, None)])
def test_steps_share_the_time_that_is_left(tmp_path, budget, longest, code):
    """At the pace of --tiny, a second of the budget is five."""
    found = run(tmp_path / "out", "--tiny", PYTHON=interpreter(tmp_path, ("table.py", "echo tables")), BUDGET_S=budget)
    steps = [json.loads(line) for line in (tmp_path / "out" / "steps.jsonl").read_text().splitlines()]
    assert [(step["step"], step["exit_code"]) for step in steps] == [(name, code) for name in STEPS]
    assert all(step["limit_s"] <= longest for step in steps)
    assert found.returncode == (code is None)
    assert ("finetune_speed: skipped" in found.stdout) == (code is None)
    assert "tables" in found.stdout


def test_missing_modules_are_named_before_the_first_step(tmp_path):
    python = interpreter(tmp_path, ("find_spec*", "echo peft"))
    found = run(tmp_path / "out", "--tiny", PYTHON=python)
    assert found.returncode == 2
    assert "peft" in found.stderr
    assert "environment" not in found.stdout


def test_tests_that_cannot_be_imported_stop_no_other_and_are_recorded(tmp_path, monkeypatch, load):
    checks = load("checks")
    tests = tmp_path / "tests" / "gpu"
    tests.mkdir(parents=True)
    (tests / "test_broken.py").write_text("import no_such_module")
    (tests / "test_fine.py").write_text("import pytest\n\n@pytest.mark.gpu\ndef test_fine():\n    pass\n")
    monkeypatch.setattr(checks, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["checks.py", str(tmp_path)])
    assert checks.main() == 1
    found = json.loads((tmp_path / "tests.json").read_text())["tests"]
    assert [(one["name"].rpartition("/")[2], one["outcome"]) for one in found] == [
        ("test_broken.py", "failed"), ("test_fine.py::test_fine", "passed"),
    ]  # fmt: skip
    assert "no_such_module" in found[0]["reason"]


def source_of(name):
    """The file of a module of this repository."""
    paths = (place / Path(*name.split(".")) for place in PLACES)
    files = (file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module, *(f"{node.module}.{one.name}" for one in node.names))


def outside_packages(files):
    """The packages that files and the modules that they import need, without those of this repository."""
    seen, found = set(), set()
    while new := set(files) - seen:
        seen |= new
        names = {name for file in new for name in imports(file)}
        files = {source for name in names if (source := source_of(name))}
        found |= {name.partition(".")[0] for name in names if source_of(name) is None}
    own = {name for name in found if source_of(name) or any((place / name).is_dir() for place in PLACES)}
    return found - own - sys.stdlib_module_names


def test_the_modules_that_the_check_requires_are_those_that_its_steps_import():
    script = (FOLDER / "run.sh").read_text()
    lists = re.findall(r"^(?:modules|optional)=\((.*?)\)", script, re.MULTILINE | re.DOTALL)
    scripts = [REPOSITORY / name for name in re.findall(r"benchmarks/[a-z_/]+\.py", script)]
    tests = [*(REPOSITORY / "tests" / "gpu").glob("*.py"), REPOSITORY / "tests" / "conftest.py"]
    # bitsandbytes is imported by its name, and W&B is disabled.
    found = outside_packages([*scripts, *tests]) - {"wandb"} | {"bitsandbytes"}
    assert found == {name for one in lists for name in one.split()}


def test_tables_say_what_is_missing_or_was_cut_off(tmp_path, load):
    (tmp_path / "finetune_speed.json").write_text('{"cap_gb": 16, "rows": [{"vari')
    text = "\n".join(load("table").lines(tmp_path))
    assert all(f"No complete {name}.json" in text for name in STEPS[1:])


def test_only_results_of_an_earlier_check_are_removed(tmp_path, monkeypatch):
    """In a folder that is given relative to the caller's."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("mine.json", "profile.json"):
        (folder / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    run("out", "--tiny", PYTHON=interpreter(tmp_path), BUDGET_S="0")
    assert {path.name for path in folder.iterdir()} == {"mine.json", "steps.jsonl"}


def test_trace_shares_count_overlaps_once_and_ignore_annotations(load):
    def event(category, start, microseconds, name="sm90_xmma_gemm_bf16"):
        return {"ph": "X", "cat": category, "ts": start, "dur": microseconds, "name": name}

    trace = [
        event("kernel", 0, 300_000), event("kernel", 200_000, 200_000, "vectorized_elementwise_kernel"),
        event("gpu_memcpy", 500_000, 100_000), event("gpu_user_annotation", 0, 1_000_000), event("cpu_op", 0, 900_000),
        event("user_annotation", 10, 900_000, "steps"), event("cuda_runtime", 20, 5, "cudaLaunchKernel"),
        *[event("cuda_runtime", start, 5, "cudaStreamSynchronize") for start in (0, 20, 30, 40, 800_000, 950_000)],
    ]  # fmt: skip
    found = load("profile_steps").summarise(trace, seconds=1.0, n_steps=2)
    assert found["shares_of_wall_time"] == {"kernels": 0.4, "copies": 0.1, "idle": 0.5}
    assert found["shares_of_kernel_time"] == {"everything else": 0.4, "matrix products": 0.6}
    assert found["longest_kernels"][0] == {"name": "sm90_xmma_gemm_bf16", "n_calls": 1, "share": 0.3}
    assert "idle 50%" in found["verdict"]
    # Without those before and after the steps.
    assert found["waits_per_step"] == 2


def test_a_variant_keeps_the_rows_measured_before_a_failure(load):
    speed = load("finetune_speed")
    good = {"variant": "ours", "batch_size": 4, "images_per_second": 1.0}
    failed = {"variant": "ours", "batch_size": 8, "error": "OutOfMemoryError: so"}
    assert speed.first_and_largest([good, failed]) == (
        good, {**good, "does_not_fit": 8, "why": "OutOfMemoryError: so"},
    )  # fmt: skip
    assert speed.first_and_largest([failed]) == (failed, failed)


def dies(config, variant, sender):
    sender.send({"variant": variant, "batch_size": 2})
    os._exit(7)


def hangs(config, variant, sender):
    sender.send({"variant": variant, "batch_size": 2})
    time.sleep(60)


@pytest.mark.parametrize(("work", "error"), [(dies, "ended with exit code 7"), (hangs, "took longer than 0.5 s")])
def test_a_process_that_dies_or_hangs_leaves_an_error_row(load, work, error):
    speed = load("finetune_speed")
    rows = speed.measure_in_process(speed.Config(timeout_s=0.5), "ours", work)
    assert rows == [{"variant": "ours", "batch_size": 2}, {"variant": "ours", "batch_size": 4, "error": error}]
