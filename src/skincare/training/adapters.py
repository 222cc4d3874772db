"""LoRA on the language model, plain or over a quantised model, through peft and bitsandbytes.

Only the small matrices learn; an exported model has them added into its own weights and loads like any other. Beside
it they are kept as they are, for peft to put onto the base model.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn
from transformers import BitsAndBytesConfig

from skincare.errors import StageError

_TARGETS: Final = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"


# Of weights that are quantised: 4 bits, and for every 64 weights a factor of 8 bits, with 4 bytes for 256 factors.
_WEIGHT_BYTES: Final = {8: 1.0, 4: 0.5 + 1 / 64 + 4 / (64 * 256)}

# By the beginnings of their names. Images are looked at with the checkpoint's own weights, once.
_NOT_QUANTISED: Final = ["model.visual", "lm_head"]


@dataclass(frozen=True)
class Adapter:
    """Low-rank matrices beside every projection of the language layers; `n_bits` of the weights under them, or 16."""

    rank: int = 16
    alpha: int = 32
    n_bits: Literal[4, 8, 16] = 16


def quantisation_config(adapter: Adapter | None) -> Any:
    """Return how transformers should load the weights under an adapter; None for as they are.

    Raises StageError where the platform cannot.
    """
    if adapter is None or adapter.n_bits == 16:
        return None
    try:
        importlib.import_module("bitsandbytes")  # only some platforms have it
    except ImportError as error:
        raise StageError(
            f"A recipe with {adapter.n_bits}-bit weights needs bitsandbytes: `pip install bitsandbytes`, or choose "
            "another recipe."
        ) from error
    if adapter.n_bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_NOT_QUANTISED)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=_NOT_QUANTISED,
    )  # fmt: skip


def _peft_config(adapter: Adapter, **settings: Any) -> LoraConfig:
    return LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, target_modules=_TARGETS, lora_dropout=0.0, **settings
    )  # fmt: skip


def quantisation_savings_bytes(model: Any, adapter: Adapter) -> int:
    """Return how many bytes less a model with LoRA takes once the weights under it are quantised."""
    if adapter.n_bits == 16:
        return 0
    weights: list[Any] = [module.get_base_layer().weight for module in model.modules() if isinstance(module, LoraLayer)]
    return sum(int(one.numel() * (one.element_size() - _WEIGHT_BYTES[adapter.n_bits])) for one in weights)


def add_lora(model: Any, adapter: Adapter, seed: int) -> None:
    """Put the matrices beside the projections; which parameters learn is chosen afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(adapter), model)
    # On processors with AVX512-BF16 bitsandbytes packs 4-bit weights anew where a layer's input needs no gradient, as
    # in an evaluation between two epochs, for a product that gradients cannot go through in the next.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def enable_lora_training(model: Any) -> dict[str, nn.Parameter]:
    """Let the matrices learn, in fp32; return their parameters by name."""
    chosen = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    for parameter in chosen.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return chosen


def merge_lora(model: Any, on_merge: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
    """Add the matrices into the weights beside them, which become fp32, and take them out again, in place.

    `on_merge` gets each weight as it was and as it is then.
    """
    for name, module in [pair for pair in model.named_modules() if isinstance(pair[1], LoraLayer)]:
        base: Any = module.get_base_layer()
        before, base.weight.data = base.weight.data, base.weight.data.float()
        module.merge()
        on_merge(before, base.weight.data)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, base)


def save_adapter(
    folder: Path, adapter: Adapter, matrices: Mapping[str, torch.Tensor], modules: Mapping[str, nn.Module], base: str
) -> None:
    """Write what turns the model `base` into the trained one, so that PeftModel.from_pretrained(model, folder) does it.

    `modules`, by their path in the model, have learnt as a whole and have their matrices added already.
    """
    own = tuple(f"{path}." for path in modules)
    tensors = {name.replace(".default.", "."): one for name, one in matrices.items() if not name.startswith(own)}
    for path, module in modules.items():
        tensors |= {f"{path}.{name}": tensor for name, tensor in module.state_dict().items()}
    config = _peft_config(
        adapter, inference_mode=True, base_model_name_or_path=base, modules_to_save=list(modules) or None,
    )  # fmt: skip
    config.save_pretrained(str(folder))
    prefixed = {f"base_model.model.{name}": one.detach().contiguous() for name, one in tensors.items()}
    save_file(prefixed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
