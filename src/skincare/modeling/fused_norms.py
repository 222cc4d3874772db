"""RMSNorm in one kernel, for frozen norms.

Those of transformers are written as eight operators, about twenty with the backward pass; torch has a fused kernel on
CUDA. On the CPU, torch runs the same operators: in fp32 outputs and gradients have equal bits. In bf16 the fused result
is rounded once, that of transformers twice.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class FusedRMSNorm(nn.Module):
    """A frozen RMSNorm over the last dimension; parameters keep the names of transformers."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the normalised states, in their dtype."""
        weight = self.weight.to(hidden_states.dtype)
        # Autocast on CUDA would compute in fp32 and return it, which every following matrix product then casts back.
        with torch.autocast("cuda", enabled=False):
            return functional.rms_norm(hidden_states, weight.shape, weight, self.eps)


def fuse_frozen_norms(model: nn.Module) -> None:
    """Replace the frozen RMSNorms of a transformers model, in place; trained ones keep the rounding of transformers."""
    for parent in list(model.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, module in children:
            if _is_rms_norm(module) and not module.weight.requires_grad:
                setattr(parent, name, FusedRMSNorm(module.weight, module.variance_epsilon))


def _is_rms_norm(module: Any) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
