"""How much memory a training run takes, before any weight is loaded.

The model is built on the meta device (shapes without storage) and one forward pass is run through it; autograd's own
hooks report what it would keep for the backward pass, so the figure follows the code and not a formula. Weights,
gradients and optimizer states are counted, what CUDA and the allocator take is a stated allowance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForImageTextToText, DynamicCache

from skincare.modelling import vision
from skincare.modelling.batches import Grid
from skincare.modelling.freezing import Trainable, count, freeze, trainable_modules
from skincare.modelling.recogniser import Recogniser
from skincare.training import adapters
from skincare.training.adapters import Adapter

GIB: Final = 2**30

# CUDA context and cuBLAS workspaces on a desktop card, and what the caching allocator loses to fragments. The
# screen's share of a card that also drives a desktop is not in it.
_CONTEXT_BYTES: Final = int(0.8 * GIB)
_FRAGMENTATION: Final = 1.10


@dataclass(frozen=True)
class MemoryPlan:
    """Memory by kind in bytes, and the choice that fits; activations are those kept for the backward pass."""

    n_parameters: int
    n_trainable: int
    parameters_by_module: dict[str, int]
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    gathered_bytes: int
    activation_bytes_per_step: int
    activation_bytes_per_picture: int
    checkpointed_bytes_per_picture: int
    cache_bytes_per_picture: int
    capacity_bytes: int
    micro_batch_size: int
    gradient_checkpointing: bool
    total_bytes: int

    @property
    def fixed_bytes(self) -> int:
        """Return what is taken whatever the batch size."""
        held = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.gathered_bytes
        return held + self.activation_bytes_per_step


def plan(
    config: Any, trainable: Trainable, n_tokens: int, grid: Grid, batch_size: int, capacity_bytes: int,
    optimizer_bytes_per_weight: float = 8.0, n_shards: int = 1, adapter: Adapter | None = None, n_opening: int = 0,
) -> MemoryPlan:  # fmt: skip
    """Plan for a model of this `config`, prompts of `n_tokens` and pictures of `grid`; AdamW keeps 8 bytes a weight.

    The first `n_opening` tokens are the same for all pictures; where training allows, they are not read again.

    Of `n_shards` processes each keeps its share, and has the whole model at hand in the checkpoint's dtype when it
    evaluates. The largest micro-batch up to `batch_size` that fits without checkpointing is chosen; checkpointing only
    where not even one picture fits without it.
    """
    model = meta_model(config)
    if adapter:
        adapters.add_lora(model, adapter, seed=0)
    parameters = freeze(model, trainable) | adapters.learn_lora(model)
    n_trainable = count(parameters.values())
    by_module = {name: count(m.parameters()) for name, m in trainable_modules(model, trainable).items()}
    if adapter:
        by_module["LoRA"] = n_trainable - sum(by_module.values())
    n_apart = n_opening if n_shards == 1 and Recogniser(model).reads_opening_once else 0
    one, two = (_kept_bytes(model, n_tokens, n_apart, grid, n) for n in (1, 2))
    per_picture = two - one
    text = model.config.text_config
    checkpointed = text.num_hidden_layers * n_tokens * text.hidden_size * 2 + per_picture // text.num_hidden_layers
    weight_bytes = sum(p.numel() * p.element_size() for p in _unique(model))
    weight_bytes -= adapters.bytes_spared(model, adapter) if adapter else 0
    sizes = {
        "weight_bytes": weight_bytes // n_shards,
        "gradient_bytes": 4 * n_trainable // n_shards,
        "optimizer_bytes": int(optimizer_bytes_per_weight * n_trainable) // n_shards,
        "gathered_bytes": 2 * count(model.parameters()) if n_shards > 1 else 0,
        "activation_bytes_per_step": one - per_picture,
    }
    fixed = sum(sizes.values())
    fits = [
        (checkpointing, n)
        for checkpointing, per in ((False, per_picture), (True, checkpointed))
        for n in _divisors(batch_size)
        if _total(fixed, per, n) <= capacity_bytes
    ]
    checkpointing, micro_batch_size = fits[0] if fits else (True, 1)
    return MemoryPlan(
        n_parameters=count(model.parameters()),
        n_trainable=n_trainable,
        parameters_by_module=by_module,
        **sizes,
        activation_bytes_per_picture=per_picture,
        checkpointed_bytes_per_picture=checkpointed,
        cache_bytes_per_picture=grid[1] * grid[2] * model.config.vision_config.embed_dim * 2,
        capacity_bytes=capacity_bytes,
        micro_batch_size=micro_batch_size,
        gradient_checkpointing=checkpointing,
        total_bytes=_total(fixed, checkpointed if checkpointing else per_picture, micro_batch_size),
    )


def describe(plan: MemoryPlan) -> Iterator[str]:
    """Yield the plan as lines for people."""
    yield f"{plan.n_parameters:,} parameters, {plan.n_trainable:,} learn:"
    for name, n_parameters in plan.parameters_by_module.items():
        yield f"    {name}: {n_parameters:,}"
    yield "memory in GiB:"
    for label, n_bytes in (
        ("weights", plan.weight_bytes),
        ("gradients", plan.gradient_bytes),
        ("optimizer", plan.optimizer_bytes),
        ("gathered from all processes", plan.gathered_bytes),
        ("activations, per step", plan.activation_bytes_per_step),
        ("activations, per picture", plan.activation_bytes_per_picture),
        ("the same with checkpointing", plan.checkpointed_bytes_per_picture),
    ):
        yield f"    {label:28} {n_bytes / GIB:7.2f}"
    yield (
        f"choice for {plan.capacity_bytes / GIB:.1f} GiB: {plan.micro_batch_size} picture(s) a pass, "
        f"checkpointing {'on' if plan.gradient_checkpointing else 'off'}: {plan.total_bytes / GIB:.2f} GiB with "
        "the allocator's and CUDA's share"
    )
    if plan.total_bytes > plan.capacity_bytes:
        yield "THIS DOES NOT FIT: train fewer modules or allow fewer visual tokens"
    yield f"picture cache on disk: {plan.cache_bytes_per_picture / 1e6:.2f} MB per picture"


def meta_model(config: Any) -> Any:
    """Return the model of a config without storage, bf16 as the checkpoints of the hub are."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.tie_weights()
    return model


def _kept_bytes(model: Any, n_tokens: int, n_apart: int, grid: Grid, n_pictures: int) -> int:
    """Return the bytes that autograd keeps of one forward pass, weights left out.

    Of the first `n_apart` tokens of each prompt just keys and values are there.
    """
    weights = dict.fromkeys(parameter.untyped_storage()._cdata for parameter in model.parameters())
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = tensor  # the tensor is held so that its storage's address stays its own
        return tensor

    visual, n_prefix = model.model.visual, vision.prefix_length(model.model.visual)
    width = visual.config.embed_dim if n_prefix >= 0 else visual.patch_embed.proj.weight[0].numel()
    text, n_own = model.config.text_config, n_tokens - n_apart
    of_head = n_pictures, text.num_key_value_heads, n_apart, text.hidden_size // text.num_attention_heads
    opening = DynamicCache()
    with torch.device("meta"):
        for i in range(text.num_hidden_layers if n_apart else 0):
            opening.update(torch.empty(of_head, dtype=torch.bfloat16), torch.empty(of_head, dtype=torch.bfloat16), i)
        mask = torch.empty(n_pictures, 1, n_own, n_tokens, dtype=torch.bool)
        states = [torch.empty(grid[1] * grid[2], width, dtype=torch.bfloat16) for _ in range(n_pictures)]
        words = torch.empty(n_pictures, n_own, text.hidden_size, dtype=torch.bfloat16)
        positions = torch.empty(3, n_pictures, n_own, dtype=torch.int64)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16), _FusedAttention():
        pictures = vision.embeddings(visual, states, [grid] * n_pictures, n_prefix)
        embeddings = words + pictures.sum()
        model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask={"full_attention": mask},
            position_ids=positions,
            past_key_values=opening if n_apart else None,
            use_cache=False,
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep what fused kernels keep; on the meta device it would keep T x T scores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _AttentionShapes.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _AttentionShapes(torch.autograd.Function):
    """Attention without arithmetic: query, key, value, output and one number per query are kept for the backward."""

    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (one.to(torch.bfloat16) for one in (query, key, value))
        output = torch.empty_like(query)
        context.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        raise NotImplementedError


def _total(fixed: int, per_picture: int, n_pictures: int) -> int:
    return int((fixed + per_picture * n_pictures) * _FRAGMENTATION) + _CONTEXT_BYTES


def _divisors(n: int) -> list[int]:
    """Return the divisors of n, largest first: micro-batches that add up to the batch."""
    return [i for i in range(n, 0, -1) if n % i == 0]


def _unique(model: Any) -> list[torch.Tensor]:
    return list({id(parameter): parameter for parameter in model.parameters()}.values())
