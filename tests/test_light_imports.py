"""Help and usage errors of a stage do not import torch, which takes seconds."""

import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY

HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "matplotlib", "cv2")

RUN_STAGE = f"""
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, {str(REPOSITORY / "src")!r})
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as error:
    print("exit code", error.code or 0)
print("imported", sorted(set(sys.modules) & set({HEAVY!r})))
"""


def run_stage(stage, *options):
    """Return exit code, imported heavy modules and messages of a stage's process."""
    script = str(REPOSITORY / "src" / f"{stage}.py")
    found = subprocess.run([sys.executable, "-c", RUN_STAGE, script, *options], capture_output=True, text=True)
    *_, exit_line, imported_line = found.stdout.splitlines()
    return exit_line, imported_line, found.stdout + found.stderr


@pytest.mark.parametrize("stage", ["finetune", "compare_recipes"])
def test_help_does_not_import_torch(stage):
    exit_line, imported, text = run_stage(stage, "--help")
    assert exit_line == "exit code 0"
    assert imported == "imported []"
    assert "--learning-rate" in text


@pytest.mark.parametrize(
    "stage", ["zero_shot", "predict", "baselines", "ablations", "explain", "score", "fuse", "runs", "export"]
)
def test_help_of_the_model_stages_does_not_import_torch(stage):
    exit_line, imported, text = run_stage(stage, "--help")
    assert exit_line == "exit code 0"
    assert not any(name in imported for name in ("torch", "transformers", "peft", "sklearn"))
    assert "--root" in text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("zero_shot", "--decoder", "nonsense"), "--decoder"),
        (("ablations", "--split", "nonsense"), "--split"),
        (("baselines", "--nonsense"), "Unrecognized"),
        (("finetune", "--nonsense"), "Unrecognized"),
        (("finetune", "--seed", "one"), "--seed"),
        (("finetune", "--recipe", "nonsense"), "Unknown recipe 'nonsense'"),
        (("finetune", "--resume", "--overwrite"), "mutually exclusive"),
        (("finetune", "--list-recipes"), "110 recipes"),
        (("compare_recipes", "--recipes", "sample,nonsense"), "Unknown recipe 'nonsense'"),
        (("compare_recipes", "--seeds", "0,x"), "--seeds must be whole numbers"),
    ],
)  # fmt: skip
def test_usage_errors_do_not_import_torch(command, message, tmp_path):
    exit_line, imported, text = run_stage(*command, "--root", str(tmp_path))
    assert (exit_line == "exit code 0") == ("--list-recipes" in command)
    assert imported == "imported []"
    assert message in text
