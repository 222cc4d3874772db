"""The most memory that a stretch of work took: on CUDA what tensors took, on a CPU the process's resident set."""

from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Begin a stretch."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # 5 sets the high-water mark back, see proc(5); where that is not allowed the mark is of the whole process.
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return


def peak_bytes(device: torch.device) -> int:
    """Return the peak since the last reset; 0 where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
