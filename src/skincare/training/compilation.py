"""torch.compile for a training run: the language layers and the MLPs of the vision blocks, one graph for all of a kind.

Layers are compiled for fixed shapes. Prompts are therefore padded to a few lengths, at the end, where no token attends
to the padding: a run compiles at most `MOST_LENGTHS` lengths, for each number of images in a pass.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import torch

from skincare.errors import StageError
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.pass_functions import PassFunctions, language_layer, vision_mlp

logger = logging.getLogger(__name__)

# Compiling one takes seconds to a minute.
MOST_LENGTHS: Final = 10
# A tile of the kernels for matrix products.
_TILE: Final = 16
# Of one function: lengths, numbers of images in a pass, frozen and trained layers.
_MOST_GRAPHS: Final = 64


def compile_layers(network: CachedVLM, n_varying_tokens: int, backend: str = "inductor") -> bool:
    """Compile the layers of training passes; return False, after a warning, if the compiler does not work here.

    n_varying_tokens: the most tokens by which prompts differ. Raises StageError with gradient checkpointing.
    """
    if network.is_checkpointing:
        raise StageError("--compile does not support gradient checkpointing: add --gradient-checkpointing False")
    reason = why_unavailable(network.device, backend)
    if reason:
        logger.warning("--compile has no effect: torch.compile with %s fails here: %s", backend, reason)
        return False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    network.functions = PassFunctions(
        _compiled(language_layer, backend, dynamic=False),
        # The number of patches of a pass varies freely.
        _compiled(vision_mlp, backend, dynamic=True),
        length_multiple(n_varying_tokens),
    )
    return True


def length_multiple(n_varying_tokens: int) -> int:
    """Return the multiple to which prompts are padded, so that they have at most `MOST_LENGTHS` lengths."""
    return _TILE * max(1, -(-n_varying_tokens // (_TILE * (MOST_LENGTHS - 2))))


def why_unavailable(device: torch.device, backend: str) -> str:
    """Return the error with which a small function fails to compile, in one line; empty if it compiles."""
    try:
        torch.compile(_probe, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # a missing compiler shows as many types of error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return " ".join(lines[:3])[:300] or type(error).__name__
    return ""


def _probe(values: torch.Tensor) -> torch.Tensor:
    return (values * 2).sin() + 1


def _compiled(function: Callable[..., torch.Tensor], backend: str, *, dynamic: bool) -> Any:
    return torch.compile(function, backend=backend, dynamic=dynamic)
