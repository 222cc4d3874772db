"""The benchmark of inference runs on the embedded model and its counts match the formulas."""

import json
import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "evaluation_speed.py"
WIDTH, N_FROZEN_BLOCKS, N_PATCH_VALUES = 128, 3, 3 * 2 * 14 * 14
N_PATCHES = 22 * 22  # of a square image of at most 128 tokens


@pytest.mark.slow
def test_cached_image_saves_only_the_frozen_blocks(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "--shape", "tiny", "--n-images", "2", "--batch-size", "2"]
    found = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "rank_cached" in found.stderr

    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    work = {method: row["gflop_per_image"] * 1e9 for method, row in rows.items()}
    # Four matrices of the attention, two of the layer after it, and the attention itself.
    block = 2 * N_PATCHES * 12 * WIDTH**2 + 4 * N_PATCHES**2 * WIDTH
    prefix = 2 * N_PATCHES * N_PATCH_VALUES * WIDTH + N_FROZEN_BLOCKS * block
    for method in ("constrained", "rank", "head"):
        assert work[method] - work[f"{method}_cached"] == pytest.approx(prefix), method
    assert work["reference"] > work["reference_4_tokens"] > work["constrained"] > work["head"]
    for method, row in rows.items():
        assert row["operations_allow"] == pytest.approx(work["reference"] / work[method])
        assert row["ratio"] == pytest.approx(row["images_per_second"] / rows["reference"]["images_per_second"])
