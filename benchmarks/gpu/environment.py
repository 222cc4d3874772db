"""The environment of the GPU check: card, driver, memory, libraries, and the rates of matrix products and copies.

Out: environment.json in the given folder.
Command: python benchmarks/gpu/environment.py FOLDER
Time: seconds.
"""

import importlib.metadata
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "src"))

import torch

from skincare.files import write_json
from skincare.runlog import environment

_LIBRARIES: Final = (
    "accelerate",
    "bitsandbytes",
    "flash_attn",
    "huggingface_hub",
    "peft",
    "tokenizers",
    "triton",
    "trl",
)


def main() -> None:
    """Collect, measure and write."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {
        "card": torch.cuda.get_device_name() if device.type == "cuda" else "no GPU",
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        **(_cuda_facts(device) if device.type == "cuda" else {}),
    }
    write_json(Path(sys.argv[1]) / "environment.json", found)


def _cuda_facts(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
    try:
        smi = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        smi = f"nvidia-smi: {error}"
    return {
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "driver_power_clock": smi,
        "cuda": torch.version.cuda,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "matmul_bf16_tflops": round(_matmul_tflops(device), 1),
        "copy_gb_per_s": round(_copy_gb_per_s(device), 1),
    }


def _matmul_tflops(device: torch.device, side: int = 8192) -> float:
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: one @ other) / 1e12


def _copy_gb_per_s(device: torch.device, n_bytes: int = 2**32) -> float:
    """Return bytes read and written per second of a copy within the device's memory."""
    source = torch.randint(256, (n_bytes,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * n_bytes / _seconds(lambda: target.copy_(source)) / 1e9


def _seconds(work: Any, n_rounds: int = 10) -> float:
    """Return the mean seconds of work on the device, after three warm-up rounds."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        work()
    start.record()
    for _ in range(n_rounds):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / n_rounds / 1e3


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
