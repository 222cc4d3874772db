"""The benchmark of visual tokens runs on the embedded model; more tokens cost more and resolve smaller print."""

import json
import subprocess
import sys

import pytest

from skincare.paths import REPOSITORY
from skincare.text_reading.pack_text import PackText, TextLine, write_pack_text


@pytest.mark.slow
def test_more_tokens_cost_more_and_enlarge_print(tmp_path):
    box = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.1))
    lines = (TextLine("NOOR", 1.0, box, 0.2), TextLine("Clay Mask", 1.0, box, 0.05))
    write_pack_text(tmp_path / "text.jsonl", [PackText("1_1", "a.jpg", "0" * 64, "fake", "read", lines=lines)])
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "resolution.py"), "--shape", "tiny", "--tokens", "36",
               "144", "--pack-text", str(tmp_path / "text.jsonl"), "--out", str(tmp_path / "found.json")]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    small, large = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [(row["tokens"], row["side_px"]) for row in (small, large)] == [(36, 168), (144, 336)]
    # The line with the word that decides, not the brand.
    assert [row["print_px"]["deciding_lines"]["50"] for row in (small, large)] == [8.4, 16.8]
    assert small["prediction"]["gflop"] < large["prediction"]["gflop"] < large["training_pass"]["gflop"]
    for cost in ("total_gib", "gib_an_image", "cache_mb_an_image"):
        assert small["plan"][cost] < large["plan"][cost]
