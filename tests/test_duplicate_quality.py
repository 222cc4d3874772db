"""The benchmark of near-duplicates counts all pairs and finds the simple ones."""

import json
import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "duplicate_quality.py"


@pytest.mark.slow
def test_simple_near_duplicates_are_found_and_other_packs_are_not(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "--n-packs", "6", "--out", str(out)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    rows = {(row["method"], row["threshold"]): row for row in json.loads(out.read_text())["rows"]}
    ours = rows["ours", 1.0]
    assert ours["recall_by_kind"]["halved"] == ours["recall_by_kind"]["recompressed"] == 1.0
    assert ours["wrong_by_kind"]["another pack"] == ours["wrong_by_kind"]["other photo"] == 0.0
    assert ours["recall"] > rows["dhash, 256 bits", 10]["recall"], "hashes of the frame miss padded images"
    by_threshold = [row for (method, _), row in rows.items() if method == "ours"]
    assert [row["recall"] for row in by_threshold] == sorted(row["recall"] for row in by_threshold)
    n_taken = ours["n_wrong"] / (1 - ours["precision"]) if ours["precision"] < 1 else 5 * 6 * ours["recall"]
    assert n_taken - ours["n_wrong"] == pytest.approx(5 * 6 * ours["recall"], abs=0.1)
