"""The classification head: a linear layer on the hidden state that predicts the answer's first token."""

from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from skincare.errors import StageError
from skincare.files import replacing
from skincare.labels import Labels

FILE_NAME: Final = "classification_head.safetensors"


class ClassificationHead(nn.Module):
    """Maps (B, width) hidden states of any dtype to (B, n_labels) fp32 scores; initialised to zero."""

    def __init__(self, width: int, n_labels: int) -> None:
        super().__init__()
        # Without an affine part: the hidden states come from the model's final norm, which has one.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.linear = nn.Linear(width, n_labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the scores of the labels, in their order."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.linear(self.norm(hidden.float()))


def save_head(folder: Path, head: ClassificationHead, labels: Labels) -> None:
    """Write the head into a model's folder."""
    with replacing(folder / FILE_NAME) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, temporary,
                  metadata={"categories": "|".join(labels.names)})  # fmt: skip


def load_head(folder: Path, width: int, n_labels: int) -> ClassificationHead | None:
    """Return the head of a model's folder, None without one; raises StageError for one of another size."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    head = ClassificationHead(width, n_labels)
    try:
        head.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StageError(f"{path}: no head for {n_labels} categories and width {width} ({error})") from error
    return head
