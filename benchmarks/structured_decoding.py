"""Constrained decoding of structured answers over the true vocabulary: 151,936 logits, a tokenizer of 151,657.

All parts go through the decoders of zero_shot.py, with random weights and Qwen's tokenizer (`qwen_vocabulary`). The
parts `answers`, `positions` and `halving` have the width of Qwen2-VL-2B with two language layers and one vision block.

    steps      seconds per token at the full shape, with and without the constraint, and the share of the mask in them:
               of the processor time of all threads, which other work on the machine does not change
    answers    validity of answers from random logits, in left-padded batches; what the longest allowed answers give; no
               token beyond the tokenizer and no special token is chosen, even where its logit is the highest
    positions  log-probabilities of a longest answer against a plain forward pass of transformers over the whole text,
               with the logits of 4,096 tokens
    halving    a batch that does not fit into a limit of live tensors: the answers against those without a limit

Out: benchmarks/results/structured_decoding_<device>.json; each part has the commit that it was measured at.
Command: python benchmarks/structured_decoding.py --vocabulary qwen.tiktoken
         python benchmarks/structured_decoding.py --vocabulary qwen.tiktoken --parts answers positions
Time: 15 minutes on two CPU cores with bf16; needs 7 GB of memory.
"""

import json
import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import tyro

from full_size import REPOSITORY, device_name
from full_size_decoding import Decoding, Times, timed_mask
from live_bytes import LiveBytes
from skincare.files import write_json
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.field_confidence import token_ends
from skincare.modeling.loading import default_device
from skincare.modeling.out_of_memory import Passes
from skincare.modeling.prompt_encoder import Grid
from skincare.product.json_answers import parse_product
from skincare.runlog import environment, git_commit

logger = logging.getLogger("structured_decoding")

_MIB: Final = 2**20
# Of the part `positions`: the first tokens of the vocabulary.
_N_LOGITS: Final = 4096
PARTS: Final = ("steps", "answers", "positions", "halving")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    vocabulary: Path
    """Qwen's vocabulary, see qwen_vocabulary.py."""
    parts: tuple[str, ...] = PARTS
    """Parts to measure; the others keep their earlier results."""
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    """Images per pass of `steps`."""
    n_steps: int = 12
    """Tokens per answer of `steps`."""
    n_answers: int = 32
    """Answers of each kind of `answers`."""
    out: Path | None = None
    """Where to write the JSON; below benchmarks/results/ if left out."""


def steps(config: Config) -> dict[str, Any]:
    """Return seconds per token of both decoders at the full shape, and the memory of the cached keys and values."""
    decoding, rows = Decoding(config.vocabulary, 28, 32), []
    for n_images in config.batch_sizes:
        images = decoding.images(n_images)
        decoding.answers("constrained", images, 1)  # the prompt prefix
        for decoder in ("generate", "constrained"):
            times = step_times(decoding, decoder, images, config.n_steps)
            rows.append({"decoder": decoder, "images": n_images, **times})
            logger.info("%s", rows[-1])
    text_config = decoding.network.model.config.text_config
    return {"rows": rows, "n_steps": config.n_steps, "cache_bytes_per_token": cache_bytes_per_token(text_config)}


def step_times(decoding: Decoding, decoder: str, images: tuple[Any, Any], n_steps: int) -> dict[str, Any]:
    """Return the seconds of the pass over the prompt with the first token, and of each further one."""
    first, whole = Times(), Times()
    with first.taken():
        decoding.answers(decoder, images, 1)
    with timed_mask() as mask, whole.taken():
        found = decoding.answers(decoder, images, 1 + n_steps)
    step = Times((whole.wall - first.wall) / n_steps, (whole.processor - first.processor) / n_steps)
    with LiveBytes() as live:
        decoding.answers(decoder, images, 1)
    return {
        "first_token_seconds": first.wall,
        "seconds_per_token": step.wall,
        "processor_seconds_per_token": step.processor,
        "mask_seconds_per_token": mask.wall / (1 + n_steps),
        "mask_processor_seconds_per_token": mask.processor / (1 + n_steps),
        "mask_share": mask.processor / (1 + n_steps) / step.processor,
        "peak_mib": live.peak / _MIB,
        "tokens": [one.n_new_tokens for one in found],
    }


def cache_bytes_per_token(text: Any) -> int:
    """Return the bytes of the keys and values of one token in all layers, in bf16."""
    width = text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * width * 2


def answers(config: Config) -> dict[str, Any]:
    """Return what answers from random logits are: their JSON status, length, and forbidden tokens."""
    decoding, found = Decoding(config.vocabulary, 2, 1), {}
    for kind, change in (
        ("ending", decoding.noise(4.0)), ("endless", decoding.noise(0.0)), ("forbidden", decoding.forbidden())
    ):  # fmt: skip
        outputs: list[DecoderOutput] = []
        with LiveBytes() as live, decoding.logits(change):
            started = time.perf_counter()
            while len(outputs) < (config.n_answers if kind == "ending" else 8):
                outputs += decoding.answers("constrained", decoding.images(8))
            seconds = time.perf_counter() - started
        found[kind] = {**summary(outputs), "seconds": round(seconds, 1), "peak_mib": live.peak / _MIB}
        logger.info("%s: %s", kind, found[kind])
    longest = max(outputs, key=lambda one: one.n_new_tokens)
    tokens = decoding.encoder.tokenizer.encode(longest.text)
    started = time.perf_counter()
    token_ends(tokens, decoding.encoder.decode)
    found["token_ends_seconds"] = {"tokens": len(tokens), "seconds": time.perf_counter() - started}
    return found


def summary(outputs: Sequence[DecoderOutput]) -> dict[str, Any]:
    """Return the counts of JSON statuses of finished answers and of those that were cut off, and their lengths."""
    status = {True: Counter[str](), False: Counter[str]()}
    fields = []
    for one in outputs:
        parsed = parse_product(one.text)
        status[one.is_finished][parsed.status] += 1
        if not one.is_finished:
            fields.append(len(parsed.product.model_dump(exclude_none=True)) if parsed.product else 0)
    return {
        "answers": len(outputs),
        "finished": dict(status[True]),
        "cut_off": dict(status[False]),
        "values_of_cut_off": fields,
        "tokens": sorted(one.n_new_tokens for one in outputs),
        "with_special_text": sum("<|" in one.text for one in outputs),
    }


def positions(config: Config) -> dict[str, Any]:
    """Return the largest difference of log-probabilities between a longest answer and a plain forward pass."""
    decoding = Decoding(config.vocabulary, 2, 1, torch.float32)
    # Positions do not depend on the number of logits, which take most of the time. The end token is not among these.
    output = decoding.network.model.lm_head
    output.weight = torch.nn.Parameter(output.weight[:_N_LOGITS].clone(), requires_grad=False)
    grids, features = images = decoding.images(2)
    batch = decoding.encoder.inference_batch(grids)
    generated = decoding.network.generate(decoding.encoder, batch, features, 768, with_log_probabilities=True)
    return {
        "tokens": [len(one.tokens) for one in generated],
        "different_tokens": [len(set(one.tokens)) for one in generated],
        "prompt_tokens": len(batch.prompt_prefix) + batch.input_ids.shape[1],
        "largest_difference": [_difference(decoding, i, grids[i], one) for i, one in enumerate(generated)],
        "images": len(images[0]),
        "n_logits": _N_LOGITS,
    }


def _difference(decoding: Decoding, i: int, grid: Grid, generated: Any) -> float:
    """Return the largest difference of the log-probabilities of an answer from those of transformers' own forward."""
    encoder, model = decoding.encoder, decoding.network.model
    whole = encoder.batch([grid])
    n_prompt, answer = whole.input_ids.shape[1], torch.tensor(generated.tokens)
    ids = torch.cat([whole.input_ids[0], answer])[None]
    patches = torch.randn(grid[1] * grid[2], 1176, generator=torch.Generator().manual_seed(i))
    with torch.no_grad():
        logits = model(
            input_ids=ids, pixel_values=patches, image_grid_thw=torch.tensor([grid]),
            mm_token_type_ids=(ids == encoder.image_token_id).int(), logits_to_keep=len(answer) + 1,
        ).logits[0, :-1]  # fmt: skip
    assert ids.shape[1] == n_prompt + len(answer)
    expected = logits.log_softmax(-1)[range(len(answer)), answer]
    return float((expected - torch.tensor(generated.log_probabilities)).abs().max())


def halving(config: Config) -> dict[str, Any]:
    """Return the batch size that is left in a process of limited memory, and whether its answers are the same."""
    decoding, n_images, n_tokens = Decoding(config.vocabulary, 2, 1, torch.float32), 16, 24
    grids, features = decoding.images(n_images)

    def texts(passes: Passes) -> list[str]:
        work = lambda part: decoding.answers("constrained", tuple(zip(*part, strict=True)), n_tokens)  # noqa: E731
        return [one.text for found in passes.over(list(zip(grids, features, strict=True)), work) for one in found]

    with LiveBytes() as live:
        expected = texts(Passes(n_images, "inference", ""))
    passes = Passes(n_images, "inference", "")
    with LiveBytes(0.4 * live.peak):
        found = texts(passes)
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    return {"images": n_images, "peak_mib": live.peak / _MIB, "images_per_pass": passes.size, "equal_answers": same}


def main() -> None:
    """Measure the parts, each in its own process, and write the results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config, device = tyro.cli(Config, description=__doc__), default_device()
    out = config.out or REPOSITORY / "benchmarks" / "results" / f"structured_decoding_{device.type}.json"
    for part in config.parts:
        work = {"steps": steps, "answers": answers, "positions": positions, "halving": halving}[part]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            result = pool.submit(work, config).result()
        conditions = {"threads": torch.get_num_threads(), "load": os.getloadavg()[0], "git_commit": git_commit()}
        logger.info("%s: %s", part, json.dumps(result, indent=2))
        # Read only now: another process may have measured another part.
        found = json.loads(out.read_text()) if out.is_file() else {}
        parts = {name: found[name] for name in PARTS if name in found} | {part: result | conditions}
        write_json(out, {**parts, "device": device_name(device), **environment()})


if __name__ == "__main__":
    main()
