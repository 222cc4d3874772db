"""CPU time and memory of recording attention in the pass of explain.py: layers of Qwen2-VL-2B's width, random weights.

The pass is that of the saliency, forward and backward to the visual tokens, over prompts of the default text. Memory is
that of what is recorded; next to it, that of all weights, which eager attention would return.

Out: benchmarks/results/attention_cost.json and a table.
Command: python benchmarks/attention_cost.py
Time: two minutes and 2 GB of memory.
"""

import json
import logging
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import torch
import tyro
from transformers import AutoModel
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig

from skincare.modeling.attention_weights import recorded_attention
from skincare.modeling.families.qwen2_vl import Qwen2VL
from skincare.runlog import environment

logger = logging.getLogger("attention_cost")

# Tokens of the default prompt after the image, with a label of four tokens; the prefix before it is cached.
_N_TEXT: Final = 21


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    n_layers: int = 2
    """Language layers, of 28."""
    n_visual: tuple[int, ...] = (128, 1024)
    """Visual tokens of the image."""
    n_repeats: int = 2
    """Passes of each kind, of which the fastest counts."""
    out: Path = REPOSITORY / "benchmarks" / "results" / "attention_cost.json"
    """Output file."""


def measure(model: Any, n_visual: int, n_repeats: int) -> dict[str, Any]:
    """Return CPU seconds of the pass without and with recording, and the bytes that are recorded."""
    n_tokens = n_visual + _N_TEXT
    inputs = torch.randn(1, n_tokens, model.config.hidden_size).requires_grad_()
    is_image = (torch.arange(n_tokens) < n_visual)[None]
    seconds: dict[str, list[float]] = {"plain": [], "recorded": []}
    recorder = None
    for _ in range(n_repeats):
        for kind, times in seconds.items():
            recording = recorded_attention(model, torch.tensor([n_tokens - 2]), is_image, 0)
            started = time.process_time()
            with recording if kind == "recorded" else nullcontext() as found:
                hidden = model(inputs_embeds=inputs, use_cache=False).last_hidden_state
            torch.autograd.grad(hidden[:, -2].sum(), inputs)
            times.append(time.process_time() - started)
            recorder = found or recorder
    assert recorder is not None
    return {
        "n_visual": n_visual,
        "seconds_plain": min(seconds["plain"]),
        "seconds_recorded": min(seconds["recorded"]),
        "bytes_per_layer": recorder.weights[0].nbytes,
        "bytes_of_rollout": 4 * n_tokens * n_visual,
        "bytes_of_all_weights_per_layer": recorder.weights[0].nbytes * n_tokens,
    }


def main() -> None:
    """Measure, write the results, log a table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(Config, description=__doc__)
    shape = {**Qwen2VL.published.config["text_config"], "num_hidden_layers": config.n_layers, "vocab_size": 64,
             "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
    model = AutoModel.from_config(Qwen2VLTextConfig(**shape), dtype=torch.float32).requires_grad_(False).eval()
    rows = [measure(model, n, config.n_repeats) for n in config.n_visual]
    result = {**environment(), "n_layers": config.n_layers, "rows": rows}
    config.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        logger.info(
            "%5d visual tokens: %.2f s plain, %.2f s recorded; per layer %.0f kB instead of %.0f kB of all weights",
            row["n_visual"], row["seconds_plain"], row["seconds_recorded"], row["bytes_per_layer"] / 1e3,
            row["bytes_of_all_weights_per_layer"] / 1e3,
        )  # fmt: skip


if __name__ == "__main__":
    main()
