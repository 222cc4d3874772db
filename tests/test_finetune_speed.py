"""The training benchmark runs on the embedded model, and each variant needs fewer operations."""

import itertools
import json
import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "finetune_speed.py"


def measured(out, variants):
    command = [sys.executable, str(SCRIPT), "--tiny", "--n-steps", "1", "--variants", variants, "--out", str(out)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return {row["variant"]: row for row in json.loads(out.read_text())["rows"]}


@pytest.mark.slow
def test_each_variant_needs_fewer_operations_and_earlier_rows_are_kept(tmp_path):
    out = tmp_path / "found.json"
    first = measured(out, "no_hooks,no_checkpointing")
    rows = measured(out, "answer_logits,ours_cached")
    assert list(rows) == ["no_hooks", "no_checkpointing", "answer_logits", "ours_cached"]
    assert rows["no_hooks"]["step_seconds"] == first["no_hooks"]["step_seconds"]
    assert not any("error" in row for row in rows.values())
    work = [row["gflop_per_image"] for row in rows.values()]
    assert all(more > 1.01 * less for more, less in itertools.pairwise(work))
    assert rows["no_hooks"]["operations_allow"] == pytest.approx(work[0] / work[-1])
