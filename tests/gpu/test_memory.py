"""The memory plan against the peak memory of real steps, at full size."""

import pytest
import torch
from benchmarks.full_size import full_size_model

from skincare.labels import skincare_labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import freeze
from skincare.modeling.loading import load_processor
from skincare.modeling.losses import example_losses
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.modeling.settings import Trainable
from skincare.paths import TINY_MODEL
from skincare.training import gradient_checkpointing, memory_plan

pytestmark = pytest.mark.gpu

N_IMAGES, N_VISUAL_TOKENS = 4, 128


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_the_plan_is_within_15_percent_of_the_peak_memory(cuda, checkpointing):
    """torch reports the allocator's peak on CUDA only."""
    encoder = PromptEncoder(load_processor(TINY_MODEL), skincare_labels())
    model = full_size_model(torch.bfloat16, cuda, encoder)
    model.config.dtype = torch.bfloat16
    parameters = freeze(model, Trainable())
    network = CachedVLM(model).train()
    if checkpointing:
        gradient_checkpointing.enable_checkpointing(model)
    grid = (1, encoder.merge_size, N_VISUAL_TOKENS * encoder.merge_size)
    n_patches = grid[1] * grid[2]
    states = [torch.randn(n_patches, 1280, dtype=torch.bfloat16, device=cuda) for _ in range(N_IMAGES)]
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-7)
    answers = ["Moisturiser"] * N_IMAGES
    for _ in range(2):  # the second has the optimizer's states
        torch.cuda.reset_peak_memory_stats(cuda)
        example_losses(network, encoder, "none", [grid] * N_IMAGES, states, answers).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    n_tokens = encoder.batch([grid], answers[:1]).input_ids.shape[1]
    found = memory_plan.plan(
        model.config, Trainable(), n_tokens, grid, N_IMAGES, 80 * memory_plan.GIB, n_prefix=len(encoder.prompt_prefix)
    )
    per_image = found.activation_bytes_per_image
    if checkpointing:
        per_image = found.checkpointed_bytes_per_image + found.recomputed_bytes_per_image
    planned = found.fixed_bytes + N_IMAGES * per_image
    assert planned == pytest.approx(torch.cuda.max_memory_allocated(cuda), rel=0.15)
