"""Gradient checkpointing is enabled with the method of the installed transformers version."""

import warnings
from types import SimpleNamespace

import torch

from skincare.training import gradient_checkpointing


def test_checkpointing_is_enabled_without_deprecation_warnings(tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        gradient_checkpointing.enable_checkpointing(tiny_model)
    assert all(layer.gradient_checkpointing for layer in tiny_model.model.language_model.layers)


def test_checkpointing_is_enabled_in_older_transformers():
    called = []
    part = SimpleNamespace(disable_input_require_grads=lambda: called.append("hooks off"))
    old = SimpleNamespace(
        gradient_checkpointing_enable=lambda gradient_checkpointing_kwargs: called.append(
            gradient_checkpointing_kwargs
        ),
        disable_input_require_grads=part.disable_input_require_grads,
        model=torch.nn.Module(),
    )
    old.model.disable_input_require_grads = part.disable_input_require_grads
    old.model.visual = old.model.language_model = part
    gradient_checkpointing.enable_checkpointing(old)
    assert called == [{"use_reentrant": False}, *["hooks off"] * 4]
