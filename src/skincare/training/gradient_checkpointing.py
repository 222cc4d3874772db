"""Gradient checkpointing: recompute activations in the backward pass instead of storing them."""

from typing import Any


def enable_checkpointing(model: Any) -> None:
    """Recompute the language layers' activations in the backward pass.

    transformers also registers hooks that make the input embeddings of every nested model require gradients. They
    would extend the backward pass through all frozen vision blocks and are removed again.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:  # older transformers, such as 5.17
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()
    for nested in (model.model, model.model.visual, model.model.language_model):
        nested.disable_input_require_grads()
