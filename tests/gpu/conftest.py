"""The GPU tests run on CUDA; on a CPU they are skipped, unless `benchmarks/gpu/run.sh --tiny` sets ON_CPU."""

import os

import pytest
import torch

from skincare.paths import Layout
from tests.dataset_helpers import write_dataset_files

ON_CPU = "GPU_TESTS_ON_CPU"


@pytest.fixture
def device():
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if not os.environ.get(ON_CPU):
        pytest.skip("needs a CUDA GPU (benchmarks/gpu/run.sh --tiny runs on a CPU what a CPU can)")
    return torch.device("cpu")


@pytest.fixture
def cuda(device, request):
    """The CUDA device, for tests whose docstring says why a CPU does not do."""
    if device.type != "cuda":
        pytest.skip(f"needs a CUDA GPU: {request.function.__doc__}")
    torch.cuda.empty_cache()
    yield device
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture
def layout(tmp_path, device):
    found = Layout(tmp_path)
    write_dataset_files(found, {"train": 8, "val": 1, "test": 1})
    return found
