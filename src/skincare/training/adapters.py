"""LoRA and DoRA on the language model, over full-precision or quantised weights, with peft and bitsandbytes.

Only the low-rank matrices are trained, and with DoRA the length of each row of the weights. The exported model has them
merged into its weights and loads like any other checkpoint; they are also saved separately, for use with peft and the
base model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraLinearLayer
from safetensors.torch import save_file
from torch import nn

from skincare.modeling.quantisation import bitsandbytes_config
from skincare.training.recipes import Adapter

_TARGETS: Final = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"

# Bytes per quantised weight. 4 bits: plus one 8-bit scale per 64 weights and 4 bytes per 256 scales.
_WEIGHT_BYTES: Final = {8: 1.0, 4: 0.5 + 1 / 64 + 4 / (64 * 256)}


def quantisation_config(adapter: Adapter | None) -> Any:
    """Return the transformers quantisation config for the weights under an adapter, None for unquantised weights.

    Raises StageError if bitsandbytes is not installed.
    """
    if adapter is None or adapter.n_bits == 16:
        return None
    return bitsandbytes_config(adapter.n_bits)


def _peft_config(adapter: Adapter, **settings: Any) -> LoraConfig:
    return LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, target_modules=_TARGETS, lora_dropout=0.0,
        use_rslora=adapter.use_rslora, use_dora=adapter.use_dora, **settings,
    )  # fmt: skip


def quantisation_savings_bytes(model: Any, adapter: Adapter) -> int:
    """Return the bytes that quantising the weights under LoRA saves."""
    if adapter.n_bits == 16:
        return 0
    weights: list[Any] = [module.get_base_layer().weight for module in model.modules() if isinstance(module, LoraLayer)]
    return sum(int(one.numel() * (one.element_size() - _WEIGHT_BYTES[adapter.n_bits])) for one in weights)


def dora_bytes_per_pass(model: Any) -> int:
    """Return the bytes that peft's DoRA needs for the largest layer in a pass; 0 without DoRA.

    It multiplies the LoRA matrices with an identity matrix in fp32, of which autocast makes a copy in 16 bits, and adds
    the product to the weights in fp32.
    """
    layers: list[Any] = [one for one in model.modules() if isinstance(one, LoraLayer) and one.lora_magnitude_vector]
    return max((6 * one.in_features**2 + 8 * one.in_features * one.out_features for one in layers), default=0)


class _Fp32DoraLayer(DoraLinearLayer):
    """DoRA whose row lengths are computed in fp32.

    peft computes them in the input's dtype: bf16 rounds them by up to 0.2 %, so that training would scale the rows by
    other numbers than the exported model, which is merged in fp32.
    """

    def get_weight_norm(self, weight: Any, lora_weight: Any, scaling: float, adapter_name: Any = None) -> torch.Tensor:
        del adapter_name
        return torch.linalg.norm(weight.float() + scaling * lora_weight.float(), dim=1)


def _use_fp32_norms(model: Any) -> None:
    """Replace peft's DoRA layers; the initial magnitudes are the row lengths of the weights."""
    for module in [one for one in model.modules() if isinstance(one, LoraLayer)]:
        for name in list(module.lora_magnitude_vector):
            layer = _Fp32DoraLayer(fan_in_fan_out=False)
            layer.update_layer(
                base_layer=module.get_base_layer(), lora_A=module.lora_A[name].weight,
                lora_B=module.lora_B[name].weight, scaling=module.scaling[name],
            )  # fmt: skip
            module.lora_magnitude_vector[name] = layer


def add_lora(model: Any, adapter: Adapter, seed: int) -> None:
    """Insert LoRA matrices, initialised from `seed`, at every projection of the language layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(adapter), model)
    _use_fp32_norms(model)
    # On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights when a layer's input needs no gradient, as in an
    # evaluation between two epochs, into a format that the next backward pass cannot go through.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def enable_lora_training(model: Any) -> dict[str, nn.Parameter]:
    """Make the LoRA matrices and DoRA magnitudes trainable, in fp32; return them by name."""
    chosen = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    for parameter in chosen.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return chosen


def merge_lora(model: Any, on_merge: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
    """Merge the LoRA matrices into their base weights, which become fp32, and remove the adapter layers, in place.

    `on_merge` is called with each weight before and after merging.
    """
    for name, module in [pair for pair in model.named_modules() if isinstance(pair[1], LoraLayer)]:
        base: Any = module.get_base_layer()
        # A copy of fp32 weights too: merging changes them in place.
        before, base.weight.data = base.weight.data, base.weight.data.to(torch.float32, copy=True)
        module.merge()
        on_merge(before, base.weight.data)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, base)


def save_adapter(
    folder: Path, adapter: Adapter, matrices: Mapping[str, torch.Tensor], modules: Mapping[str, nn.Module], base: str
) -> None:
    """Write an adapter folder, so that PeftModel.from_pretrained(base_model, folder) gives the trained model.

    `modules`, by their path in the model, are fully trained and already have their LoRA matrices merged.
    """
    own = tuple(f"{path}." for path in modules)
    tensors = {_saved_name(name): one for name, one in matrices.items() if not name.startswith(own)}
    for path, module in modules.items():
        tensors |= {f"{path}.{name}": tensor for name, tensor in module.state_dict().items()}
    config = _peft_config(
        adapter, inference_mode=True, base_model_name_or_path=base, modules_to_save=list(modules) or None,
    )  # fmt: skip
    config.save_pretrained(str(folder))
    prefixed = {f"base_model.model.{name}": one.detach().contiguous() for name, one in tensors.items()}
    save_file(prefixed, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _saved_name(name: str) -> str:
    """Return the name of a tensor in peft's files; magnitudes have none of their own module."""
    return name.replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector").replace(".default.", ".")
