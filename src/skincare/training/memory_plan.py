"""How much memory a training run takes, before any weight is loaded.

The model is built on the meta device (shapes without storage) and forward passes are run through it, with and without
checkpointing; autograd's own hooks report what it would keep for the backward pass, so the figures follow the code and
not a formula. That device knows no autocast: what trained parts keep of an image is counted in fp32, up to 1.6 times
what a real pass in bf16 keeps, so that the plan errs on the safe side. Weights, gradients and optimizer states are
counted, what CUDA and the allocator take is a stated allowance.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForImageTextToText, DynamicCache

from skincare.modeling import vision
from skincare.modeling.batches import Grid
from skincare.modeling.freezing import count, freeze, trainable_modules
from skincare.modeling.recogniser import Recogniser
from skincare.modeling.settings import Trainable
from skincare.training import adapters
from skincare.training.adapters import Adapter
from skincare.training.gradient_checkpointing import enable_checkpointing

GIB: Final = 2**30

# CUDA context and cuBLAS workspaces on a desktop card, and what the caching allocator loses to fragments. The
# screen's share of a card that also drives a desktop is not in it.
_CONTEXT_BYTES: Final = int(0.8 * GIB)
_FRAGMENTATION: Final = 1.10

_EIGHT_BIT_STATES: Final = 2.0  # bytes a weight


@dataclass(frozen=True)
class MemoryPlan:
    """Memory by kind in bytes, and the choice that fits; activations are those kept for the backward pass.

    cast_bytes: the trained weights once more in the checkpoint's dtype, for as long as a pass is under way;
    recomputed_bytes_per_image: with checkpointing, one language layer's activations beside what is kept;
    alternatives: where one image does not fit, what would be taken with one, by what would have to be changed.
    """

    n_parameters: int
    n_trainable: int
    parameters_by_module: dict[str, int]
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    gathered_bytes: int
    cast_bytes: int
    activation_bytes_per_step: int
    activation_bytes_per_image: int
    checkpointed_bytes_per_image: int
    recomputed_bytes_per_image: int
    cache_bytes_per_image: int
    capacity_bytes: int
    micro_batch_size: int
    gradient_checkpointing: bool
    total_bytes: int
    alternatives: dict[str, int]

    @property
    def fits(self) -> bool:
        """Tell whether a pass of one image, at least, has room."""
        return self.total_bytes <= self.capacity_bytes

    @property
    def fixed_bytes(self) -> int:
        """Return what is taken whatever the batch size."""
        held = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.gathered_bytes
        return held + self.cast_bytes + self.activation_bytes_per_step


def plan(
    config: Any, trainable: Trainable, n_tokens: int, grid: Grid, batch_size: int, capacity_bytes: int,
    optimizer_bytes_per_weight: float = 8.0, n_shards: int = 1, adapter: Adapter | None = None, n_opening: int = 0,
    *, names_alternatives: bool = True,
) -> MemoryPlan:  # fmt: skip
    """Plan for a model of this `config`, prompts of `n_tokens` and images of `grid`; AdamW keeps 8 bytes a weight.

    The first `n_opening` tokens are the same for all images; where training allows, they are not read again.

    Of `n_shards` processes each keeps its share, and has the whole model at hand in the checkpoint's dtype when it
    evaluates. The largest micro-batch up to `batch_size` that fits without checkpointing is chosen; checkpointing only
    where not even one image fits without it.
    """
    model = meta_model(config)
    if adapter:
        adapters.add_lora(model, adapter, seed=0)
    parameters = freeze(model, trainable) | adapters.enable_lora_training(model)
    n_trainable = count(parameters.values())
    by_module = {name: count(m.parameters()) for name, m in trainable_modules(model, trainable).items()}
    if adapter:
        by_module["LoRA"] = n_trainable - sum(by_module.values())
    n_apart = n_opening if n_shards == 1 and Recogniser(model).reads_opening_once else 0
    one, two = (_kept_bytes(model, n_tokens, n_apart, grid, n) for n in (1, 2))
    per_image = two - one
    kept, recomputed = _checkpointed_bytes(model, n_tokens, grid)
    weight_bytes = sum(p.numel() * p.element_size() for p in _unique(model))
    weight_bytes -= adapters.quantisation_savings_bytes(model, adapter) if adapter else 0
    sizes = {
        "weight_bytes": weight_bytes // n_shards,
        "gradient_bytes": 4 * n_trainable // n_shards,
        "optimizer_bytes": int(optimizer_bytes_per_weight * n_trainable) // n_shards,
        "gathered_bytes": 2 * count(model.parameters()) if n_shards > 1 else 0,
        # Of shards, what is gathered has that dtype already.
        "cast_bytes": 2 * n_trainable if n_shards == 1 else 0,
        "activation_bytes_per_step": one - per_image,
    }
    fixed = sum(sizes.values())
    per_pass = {False: per_image, True: kept + recomputed}
    checkpointing, micro_batch_size = _pass(fixed, per_pass, batch_size, capacity_bytes)
    found = MemoryPlan(
        n_parameters=count(model.parameters()),
        n_trainable=n_trainable,
        parameters_by_module=by_module,
        **sizes,
        activation_bytes_per_image=per_image,
        checkpointed_bytes_per_image=kept,
        recomputed_bytes_per_image=recomputed,
        cache_bytes_per_image=grid[1] * grid[2] * model.config.vision_config.embed_dim * 2,
        capacity_bytes=capacity_bytes,
        micro_batch_size=micro_batch_size,
        gradient_checkpointing=checkpointing,
        total_bytes=_total(fixed, per_pass[checkpointing], micro_batch_size),
        alternatives={},
    )
    if found.fits or not names_alternatives:
        return found
    how = {"n_tokens": n_tokens, "grid": grid, "batch_size": 1, "capacity_bytes": capacity_bytes,
           "n_shards": n_shards, "n_opening": n_opening}  # fmt: skip
    return replace(found, alternatives=dict(_alternatives(config, how, trainable, adapter, optimizer_bytes_per_weight)))


def _pass(fixed_bytes: int, bytes_per_image: dict[bool, int], batch_size: int, capacity: int) -> tuple[bool, int]:
    """Return the first choice that fits: with checkpointing or without (the keys), and how many images a pass."""
    for checkpointing, per_image in bytes_per_image.items():
        for n in _divisors(batch_size):
            if _total(fixed_bytes, per_image, n) <= capacity:
                return checkpointing, n
    return True, 1


def _alternatives(
    config: Any, how: dict[str, Any], trainable: Trainable, adapter: Adapter | None, bytes_per_weight: float
) -> Iterator[tuple[str, int]]:
    """Yield what takes less than what was planned, and how much in all with one image a pass."""
    nothing = Trainable(0, False, 0)
    changes: dict[str, tuple[Trainable, Adapter | None, float]] = {}
    if bytes_per_weight > _EIGHT_BIT_STATES:
        changes["AdamW with 8-bit states (-adamw8bit)"] = (trainable, adapter, _EIGHT_BIT_STATES)
    if trainable.everything or trainable.n_language_layers > 4:
        changes["fewer layers: the last four blocks and layers (-k4)"] = (Trainable(4, True, 4), None, bytes_per_weight)
    if trainable.everything or trainable.n_language_layers > 1:
        changes["fewer layers: the last block and layer"] = (Trainable(), None, bytes_per_weight)
    if trainable != nothing:
        changes["LoRA (-lora)"] = (nothing, Adapter(), bytes_per_weight)
    changes["LoRA over 4-bit weights (-qlora4)"] = (nothing, Adapter(n_bits=4), bytes_per_weight)
    for name, (parts, lora, n_bytes) in changes.items():
        other = plan(config, parts, optimizer_bytes_per_weight=n_bytes, adapter=lora, names_alternatives=False, **how)
        yield name, other.total_bytes


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
        ("trained weights in bf16", plan.cast_bytes),
        ("activations, per step", plan.activation_bytes_per_step),
        ("activations, per image", plan.activation_bytes_per_image),
        ("kept with checkpointing", plan.checkpointed_bytes_per_image),
        ("and recomputed at a time", plan.recomputed_bytes_per_image),
    ):
        yield f"    {label:28} {n_bytes / GIB:7.2f}"
    how = f"{plan.micro_batch_size} image(s) a pass, checkpointing {'on' if plan.gradient_checkpointing else 'off'}"
    total = f"{plan.total_bytes / GIB:.2f} GiB with the allocator's and CUDA's share"
    if plan.fits:
        yield f"choice for {plan.capacity_bytes / GIB:.1f} GiB: {how}: {total}"
    else:
        yield from describe_misfit(plan)
    yield f"image cache on disk: {plan.cache_bytes_per_image / 1e6:.2f} MB per image"


def describe_misfit(plan: MemoryPlan) -> Iterator[str]:
    """Yield, for a plan that does not fit, by how much it does not and what would, or comes nearest."""
    capacity = plan.capacity_bytes / GIB
    yield (
        f"THIS DOES NOT FIT into {capacity:.1f} GiB: even one image a pass with checkpointing takes "
        f"{plan.total_bytes / GIB:.2f} GiB, {plan.fixed_bytes / GIB:.2f} GiB of them whatever is passed"
    )
    for name, n_bytes in sorted(plan.alternatives.items(), key=lambda item: -item[1]):
        yield f"    {'fits' if n_bytes <= plan.capacity_bytes else 'no  '} {n_bytes / GIB:7.2f} GiB with {name}"
    if not any(n_bytes <= plan.capacity_bytes for n_bytes in plan.alternatives.values()):
        yield "    nothing of that fits: allow fewer visual tokens (--max-tokens), or take a device with more memory"


def meta_model(config: Any) -> Any:
    """Return the model of a config without storage, bf16 as the checkpoints of the hub are."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.tie_weights()
    return model


def _checkpointed_bytes(model: Any, n_tokens: int, grid: Grid) -> tuple[int, int]:
    """Return what autograd keeps of an image with checkpointing, which stays on, and what one layer recomputes."""
    # Checkpointed layers forget what they have read: the text before the image is read with each.
    whole = [_kept_bytes(model, n_tokens, 0, grid, n) for n in (1, 2)]
    enable_checkpointing(model)
    model.train()  # transformers recomputes in training mode only
    kept = [_kept_bytes(model, n_tokens, 0, grid, n) for n in (1, 2)]
    per_image = kept[1] - kept[0]
    return per_image, (whole[1] - whole[0] - per_image) // model.config.text_config.num_hidden_layers


def _kept_bytes(model: Any, n_tokens: int, n_apart: int, grid: Grid, n_images: int) -> int:
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
    of_head = n_images, text.num_key_value_heads, n_apart, text.hidden_size // text.num_attention_heads
    opening = DynamicCache()
    with torch.device("meta"):
        for i in range(text.num_hidden_layers if n_apart else 0):
            opening.update(torch.empty(of_head, dtype=torch.bfloat16), torch.empty(of_head, dtype=torch.bfloat16), i)
        mask = torch.empty(n_images, 1, n_own, n_tokens, dtype=torch.bool)
        states = [torch.empty(grid[1] * grid[2], width, dtype=torch.bfloat16) for _ in range(n_images)]
        words = torch.empty(n_images, n_own, text.hidden_size, dtype=torch.bfloat16)
        positions = torch.empty(3, n_images, n_own, dtype=torch.int64)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16), _FusedAttention():
        images = vision.embeddings(visual, states, [grid] * n_images, n_prefix)
        embeddings = words + images.sum()
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


def _total(fixed: int, per_image: int, n_images: int) -> int:
    return int((fixed + per_image * n_images) * _FRAGMENTATION) + _CONTEXT_BYTES


def _divisors(n: int) -> list[int]:
    """Return the divisors of n, largest first: micro-batches that add up to the batch."""
    return [i for i in range(n, 0, -1) if n % i == 0]


def _unique(model: Any) -> list[torch.Tensor]:
    return list({id(parameter): parameter for parameter in model.parameters()}.values())
