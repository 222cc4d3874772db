"""A classification head: one linear layer from the state that would predict the answer's first token to categories."""

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
    """Maps (B, width) states of any dtype to (B, n_labels) fp32 scores; starts at zero, all categories alike."""

    def __init__(self, width: int, n_labels: int) -> None:
        super().__init__()
        # Without gain: the states come out of the model's last norm.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.linear = nn.Linear(width, n_labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the scores of the categories, in their order."""
        with torch.autocast(states.device.type, enabled=False):
            return self.linear(self.norm(states.float()))


def save_head(folder: Path, head: ClassificationHead, labels: Labels) -> None:
    """Write the head beside a model's weights."""
    with replacing(folder / FILE_NAME) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, temporary,
                  metadata={"categories": "|".join(labels.names)})  # fmt: skip


def load_head(folder: Path, width: int, n_labels: int) -> ClassificationHead | None:
    """Return the head of a model's folder, None where it has none; StageError when it does not fit."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    head = ClassificationHead(width, n_labels)
    try:
        head.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StageError(f"{path}: no head for {n_labels} categories and width {width} ({error})") from error
    return head
