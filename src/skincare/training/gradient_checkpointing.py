"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept."""

from typing import Any


def enable_checkpointing(model: Any) -> None:
    """Recompute the language layers' activations in the backward pass.

    transformers also hooks the embeddings of every nested model so that their outputs need gradients, which would
    send the backward pass through all frozen vision blocks; the hooks are taken off again.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:  # older transformers, such as 5.17
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()
    for nested in (model.model, model.model.visual, model.model.language_model):
        nested.disable_input_require_grads()
