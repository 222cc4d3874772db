"""Profile of ten training steps on the device: shares of kernels, copies and idle time, and what to optimise.

The steps are those of finetune.py at the full size of Qwen2-VL-2B with random weights. The wall time is measured
without the profiler, which adds overhead; kernels and copies are profiled in ten more steps. Overlapping kernels count
once. Waits are calls in which the host waits for the device; a step should have none.

Variants:

    cached_ahead     vision features from the cache, images of the next step loaded in a background thread: as
                     finetune.py runs
    cached           without the thread
    computed_ahead   images passed through the frozen vision blocks in every step, as with augmentation, and decoded one
                     step ahead
    computed         without the thread
    compiled         as cached_ahead, with finetune.py --compile

Out: profile.json in the given folder, or profile_NAME.json with `--name`.
Command: python benchmarks/gpu/profile_steps.py FOLDER [--tiny] [--batch-sizes 4 16] [--variants cached_ahead compiled]
Time: a minute on a GPU; `compiled` one or two more.
"""

import itertools
import json
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro
from torch.profiler import ProfilerActivity, profile, record_function

import finetune_variants as variants
from full_size import device_name, native_dtype, timed
from skincare.files import write_json
from skincare.modeling.loading import default_device
from skincare.runlog import environment

logger = logging.getLogger("profile_steps")

VARIANTS: Final[dict[str, dict[str, bool]]] = {
    "cached_ahead": {"cached": True, "ahead": True},
    "cached": {"cached": True},
    "computed_ahead": {"cached": False, "ahead": True},
    "computed": {"cached": False},
    "compiled": {"cached": True, "ahead": True, "compiled": True},
}
# Name of the profiled steps in the trace; the profiler itself waits for the device outside of them.
_STEPS: Final = "steps"
# Calls of the CUDA runtime.
_WAITS: Final = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"}
_COPIES: Final = ("gpu_memcpy", "gpu_memset")
# Parts of kernel names of cuBLAS, CUTLASS, flash attention and the optimizers.
_KINDS: Final = {
    "attention": ("flash", "fmha", "attention", "softmax"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "xmma"),
    "optimizer": ("adam", "multi_tensor", "foreach"),
}


@dataclass(frozen=True)
class Config:
    """Options of the profile."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder for profile.json."""
    batch_sizes: tuple[int, ...] = (16, 4)
    """Images per step; one profile for each."""
    variants: tuple[str, ...] = ("cached_ahead", "computed_ahead", "cached", "computed")
    """Variants of the step, see above; each is profiled with every number of images."""
    name: str = "profile"
    """Name of the results file."""
    n_steps: int = 10
    """Steps per profile."""
    tiny: bool = False
    """Use the embedded model instead of the full size."""


def main() -> None:
    """Profile each batch size; write after each."""
    config = tyro.cli(Config, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = default_device()
    rows: list[dict[str, Any]] = []
    for variant, batch_size in itertools.product(config.variants, config.batch_sizes):
        found = _profiled(config, variant, batch_size, device)
        rows.append({"variant": variant, "batch_size": batch_size, "n_steps": config.n_steps, **found})
        logger.info("%s, %d images per step: %s", variant, batch_size, rows[-1]["verdict"])
        write_json(config.out / f"{config.name}.json", {"device": device_name(device), "rows": rows, **environment()})


def _profiled(config: Config, variant: str, batch_size: int, device: torch.device) -> dict[str, Any]:
    dtype = getattr(torch, native_dtype(device))
    with tempfile.TemporaryDirectory() as name:
        names = variants.images(Path(name), batch_size)
        step = variants.ours(
            variants.Setting(Path(name), names, device, dtype, config.n_steps, config.tiny), **VARIANTS[variant]
        )
        for _ in range(3):
            step()
        seconds = timed(lambda: _repeat(step, config.n_steps), device)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        with profile(activities=activities) as profiler:
            timed(lambda: _repeat(step, config.n_steps), device)
        trace = Path(name) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return {"images_per_second": config.n_steps * batch_size / seconds, **summarise(events, seconds, config.n_steps)}


def _repeat(work: Callable[[], object], n: int) -> None:
    with record_function(_STEPS):
        for _ in range(n):
            work()


def summarise(events: Iterable[Mapping[str, Any]], seconds: float, n_steps: int) -> dict[str, Any]:
    """Return shares of the wall time, the ten longest kernels and a verdict, from the events of a Chrome trace.

    Without device events, as on a CPU, the operators of the host are listed instead of kernels.
    """
    timed_events = [event for event in events if event.get("ph") == "X" and event.get("dur", 0) > 0]
    kernels = [event for event in timed_events if event.get("cat") == "kernel"]
    copies = [event for event in timed_events if event.get("cat") in _COPIES]
    shares = {
        "kernels": _union_us(kernels) / 1e6 / seconds,
        "copies": _union_us(copies) / 1e6 / seconds,
        "idle": max(0.0, 1 - _union_us([*kernels, *copies]) / 1e6 / seconds),
    }
    kinds: dict[str, float] = defaultdict(float)
    total = sum(event["dur"] for event in kernels)
    for event in kernels:
        kinds[_kind(event["name"])] += event["dur"] / total
    found: dict[str, Any] = {"wall_seconds": seconds, "n_kernels": len(kernels)}
    if not kernels:
        operators = [event for event in timed_events if event.get("cat") == "cpu_op"]
        verdict = "no device events were recorded"
        return {**found, "longest_operators": _longest(operators, seconds), "verdict": verdict}
    return {
        **found,
        "waits_per_step": _count_waits(timed_events) / n_steps,
        "shares_of_wall_time": {name: round(share, 4) for name, share in shares.items()},
        "shares_of_kernel_time": {name: round(share, 4) for name, share in sorted(kinds.items())},
        "longest_kernels": _longest(kernels, seconds),
        "verdict": _verdict(shares, kinds),
    }


def _count_waits(events: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of calls within the steps in which the host waits for the device."""
    steps = [event for event in events if event["name"] == _STEPS and event.get("cat") == "user_annotation"]
    waits = [event["ts"] for event in events if event["name"] in _WAITS]
    return sum(one["ts"] <= start < one["ts"] + one["dur"] for one in steps for start in waits)


def _union_us(events: Sequence[Mapping[str, Any]]) -> float:
    """Return the microseconds in which at least one of the events was running."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda one: one["ts"]):
        stop = event["ts"] + event["dur"]
        total += max(0.0, stop - max(end, event["ts"]))
        end = max(end, stop)
    return total


def _longest(events: Sequence[Mapping[str, Any]], seconds: float, n: int = 10) -> list[dict[str, Any]]:
    """Return the names with the longest total time, with their calls and share of the wall time."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for event in events:
        by_name[event["name"]].append(event["dur"])
    ordered = sorted(by_name.items(), key=lambda one: -sum(one[1]))[:n]
    return [
        {"name": name[:120], "n_calls": len(us), "share": round(sum(us) / 1e6 / seconds, 4)} for name, us in ordered
    ]


def _kind(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, parts in _KINDS.items() if any(part in name for part in parts)), "everything else")


def _verdict(shares: Mapping[str, float], kinds: Mapping[str, float]) -> str:
    """Return the most promising optimisation in one line; the thresholds are rules of thumb."""
    if shares["idle"] > 0.3:
        return (
            f"the device is idle {shares['idle']:.0%} of the time: larger micro-batches, or CUDA graphs for the layers"
        )
    if shares["copies"] > 0.1:
        return f"copies take {shares['copies']:.0%}: keep the cached features on the device, or pin them"
    kind = max(kinds, key=lambda one: kinds[one])
    advice = {
        "matrix products": "only fewer operations would help",
        "attention": "another attention kernel",
        "optimizer": "a fused optimizer",
        "everything else": "fuse the elementwise kernels (torch.compile)",
    }
    return f"{kind} take {kinds[kind]:.0%} of the kernels' time: {advice[kind]}"


if __name__ == "__main__":
    main()
