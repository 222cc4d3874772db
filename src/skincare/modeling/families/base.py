"""What a model family defines: the hooks of `skincare.modeling.vision_tower` and the shapes of its published models.

The defaults are those of a vision transformer that attends over whole images, without learned positions and without
outputs of intermediate blocks. Text positions, prompt and language layers are used through transformers and need no
hook: an image has the same multimodal positions in every family, and the rotary embedding interleaves them or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from skincare.modeling.prompt_encoder import Grid


@dataclass(frozen=True)
class PublishedModel:
    """A published checkpoint's shape, to plan a training run without a hub and to check what is selected for training.

    config: the fields of config.json that differ from the defaults of transformers; n_reference_trainable: the
    parameters of the last vision block, the merger and the last language layer.
    """

    names: frozenset[str]
    config: dict[str, Any]
    n_parameters: int
    n_reference_trainable: int

    def resized(
        self, names: frozenset[str], n_parameters: int, n_reference_trainable: int, text_config: dict[str, Any],
        vision_config: dict[str, Any], **fields: Any,
    ) -> "PublishedModel":  # fmt: skip
        """Return another size of the same family, whose configuration differs in these fields."""
        config = {
            **self.config,
            "text_config": self.config["text_config"] | text_config,
            "vision_config": self.config["vision_config"] | vision_config,
            **fields,
        }
        return PublishedModel(names, config, n_parameters, n_reference_trainable)


class Family:
    """A model family; `visual` is its vision tower in transformers."""

    model_type: str
    label: str
    # The smallest published model, and larger ones.
    published: PublishedModel
    larger: tuple[PublishedModel, ...] = ()
    # Fields of the vision configuration that change the features and are no weights.
    vision_settings: tuple[str, ...] = ("num_heads",)

    @property
    def models(self) -> tuple[PublishedModel, ...]:
        """Return the published models."""
        return (self.published, *self.larger)

    def vision_width(self, config: Any) -> int:
        """Return the width of the vision blocks."""
        return config.hidden_size

    def attention_lengths(self, visual: Any, grids: Sequence[Grid]) -> list[list[int]]:
        """Return for each block the lengths of the runs of patches within which it attends."""
        return [image_lengths(grids)] * len(visual.blocks)

    def block_order(self, visual: Any, grids: Sequence[Grid]) -> torch.Tensor | None:  # noqa: ARG002
        """Return the (n_visual_tokens,) order in which the blocks see the merge blocks; None for the images' own."""
        return None

    def patch_positions(self, visual: Any, grids: Sequence[Grid]) -> torch.Tensor | None:  # noqa: ARG002
        """Return the (n_patches, width) learned positions that are added to the patch embeddings."""
        return None

    def position_modules(self, visual: Any) -> list[nn.Module]:  # noqa: ARG002
        """Return the modules that `patch_positions` uses."""
        return []

    def deepstack_mergers(self, visual: Any) -> dict[int, nn.Module]:  # noqa: ARG002
        """Return by block index the mergers of intermediate blocks, in the order of the language layers they feed."""
        return {}


def image_lengths(grids: Sequence[Grid]) -> list[int]:
    """Return the number of patches of each image."""
    return [frames * rows * columns for frames, rows, columns in grids]
