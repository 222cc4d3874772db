"""Memory plan of a training run, computed before any weight is loaded.

Weights, gradients and optimizer states are counted, activations measured on the meta device (`activation_memory`);
CUDA's context and the allocator's overhead are constants.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from skincare.modeling import vision_tower
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.freezing import count, freeze, trainable_modules
from skincare.modeling.prompt_encoder import Grid
from skincare.modeling.settings import Trainable
from skincare.training import adapters, optimizers, weight_average
from skincare.training.activation_memory import activation_bytes, checkpointed_bytes_per_image, meta_model
from skincare.training.recipes import Adapter, OptimizerName

GIB: Final = 2**30

# CUDA context and cuBLAS workspaces on a desktop card, and the caching allocator's fragmentation. The memory of a
# screen on the same card is not included.
_CONTEXT_BYTES: Final = int(0.8 * GIB)
_FRAGMENTATION: Final = 1.10

# Per logit of the answer, in fp32: its log-probability, the gradient of that, and its own gradient.
_LOGIT_BYTES: Final = 12


@dataclass(frozen=True)
class MemoryPlan:
    """Memory by kind in bytes, and the chosen micro-batch; activations are those stored for the backward pass.

    average_bytes: the moving average of the trained weights; cast_bytes: the copy of the trained weights in the
    checkpoint's dtype during a pass; dora_bytes: what DoRA needs for one layer during a pass;
    recomputed_bytes_per_image: with checkpointing, one language layer's activations in addition to the stored ones;
    alternatives: if not even one image fits, the total with one image per kind of change.
    """

    n_parameters: int
    n_trainable: int
    parameters_by_module: dict[str, int]
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    average_bytes: int
    gathered_bytes: int
    cast_bytes: int
    dora_bytes: int
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
        """Return whether a pass of at least one image fits."""
        return self.total_bytes <= self.capacity_bytes

    @property
    def fixed_bytes(self) -> int:
        """Return the memory that does not depend on the batch size."""
        persistent = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.average_bytes
        return persistent + self.gathered_bytes + self.cast_bytes + self.dora_bytes + self.activation_bytes_per_step


def plan(
    config: Any, trainable: Trainable, n_tokens: int, grid: Grid, batch_size: int, capacity_bytes: int,
    optimizer: OptimizerName = "adamw", n_shards: int = 1, adapter: Adapter | None = None, n_prefix: int = 0,
    *, n_answer: int = 0, length_multiple: int = 1, has_average: bool = False, with_alternatives: bool = True,
) -> MemoryPlan:  # fmt: skip
    """Plan for a model of this `config`, prompts of `n_tokens` and images of `grid`.

    The first `n_prefix` tokens are the same for all images and are cached where training allows it. The last `n_answer`
    tokens are the answer, whose logits are stored. Prompts are padded to a multiple of `length_multiple`, after the
    cached tokens. Each of `n_shards` processes stores its shard, and gathers the whole model in the checkpoint's dtype
    to evaluate.

    The largest micro-batch up to `batch_size` that fits without checkpointing is chosen; checkpointing only if not even
    one image fits without it.
    """
    model = meta_model(config)
    if adapter:
        adapters.add_lora(model, adapter, seed=0)
    parameters = freeze(model, trainable) | adapters.enable_lora_training(model)
    n_trainable = count(parameters.values())
    n_cached = n_prefix if n_shards == 1 and CachedVLM(model).caches_prompt_prefix else 0
    n_padded = n_cached + -(-(n_tokens - n_cached) // length_multiple) * length_multiple
    one, two, checkpointed, recomputed = _measure(model, trainable, adapter, n_padded, n_cached, grid)
    logits = _LOGIT_BYTES * n_answer * model.config.text_config.vocab_size
    per_image, checkpointed = two - one + logits, checkpointed + logits
    sizes = {
        **_weight_sizes(model, parameters, adapter, optimizer, n_shards, has_average=has_average),
        "activation_bytes_per_step": 2 * one - two,
    }
    fixed = sum(sizes.values())
    per_pass = {False: per_image, True: checkpointed + recomputed}
    checkpointing, micro_batch_size = _choose_pass(fixed, per_pass, batch_size, capacity_bytes)
    found = MemoryPlan(
        n_parameters=count(model.parameters()),
        n_trainable=n_trainable,
        parameters_by_module=_parameters_by_module(model, trainable, n_trainable, has_lora=adapter is not None),
        **sizes,
        activation_bytes_per_image=per_image,
        checkpointed_bytes_per_image=checkpointed,
        recomputed_bytes_per_image=recomputed,
        cache_bytes_per_image=_cache_bytes(model, grid),
        capacity_bytes=capacity_bytes,
        micro_batch_size=micro_batch_size,
        gradient_checkpointing=checkpointing,
        total_bytes=_total(fixed, per_pass[checkpointing], micro_batch_size),
        alternatives={},
    )
    if found.fits or not with_alternatives:
        return found
    fixed_settings = {
        "n_tokens": n_tokens, "grid": grid, "batch_size": 1, "capacity_bytes": capacity_bytes, "n_shards": n_shards,
        "n_prefix": n_prefix, "n_answer": n_answer, "length_multiple": length_multiple, "has_average": has_average,
        "with_alternatives": False,
    }  # fmt: skip
    others = _alternatives(config, fixed_settings, trainable, adapter, optimizer)
    return replace(found, alternatives=dict(others))


def _weight_sizes(
    model: Any, parameters: Mapping[str, torch.Tensor], adapter: Adapter | None, optimizer: OptimizerName,
    n_shards: int, *, has_average: bool,
) -> dict[str, int]:  # fmt: skip
    """Return the bytes per process of the weights and of what training keeps for each of them, by field of the plan."""
    n_trainable = count(parameters.values())
    return {
        "weight_bytes": _weight_bytes(model, adapter) // n_shards,
        "gradient_bytes": 4 * n_trainable // n_shards,
        "optimizer_bytes": optimizers.state_bytes(optimizer, parameters) // n_shards,
        "average_bytes": weight_average.BYTES_PER_WEIGHT * n_trainable * has_average // n_shards,
        "gathered_bytes": 2 * count(model.parameters()) if n_shards > 1 else 0,
        # Gathered shards have that dtype already.
        "cast_bytes": 2 * n_trainable if n_shards == 1 else 0,
        "dora_bytes": adapters.dora_bytes_per_pass(model),
    }


def _measure(
    model: Any, trainable: Trainable, adapter: Adapter | None, n_tokens: int, n_cached: int, grid: Grid
) -> tuple[int, int, int, int]:
    """Return the activation bytes of one and two images, and those of `checkpointed_bytes_per_image`.

    They take seconds, and a comparison of recipes or seeds plans equal runs: the results are kept per shape.
    """
    config = model.config
    key = config.to_json_string(), config._attn_implementation, trainable, adapter, n_tokens, n_cached, grid
    if key not in _measured:
        one, two = (activation_bytes(model, n_tokens, n_cached, grid, n) for n in (1, 2))
        _measured[key] = one, two, *checkpointed_bytes_per_image(model, n_tokens, grid)
    return _measured[key]


_measured: dict[tuple[Any, ...], tuple[int, int, int, int]] = {}


def _parameters_by_module(model: Any, trainable: Trainable, n_trainable: int, *, has_lora: bool) -> dict[str, int]:
    by_module = {name: count(m.parameters()) for name, m in trainable_modules(model, trainable).items()}
    return by_module | ({"LoRA": n_trainable - sum(by_module.values())} if has_lora else {})


def _cache_bytes(model: Any, grid: Grid) -> int:
    """Return the size of an image's features after all but the last vision block, in bf16."""
    width = vision_tower.feature_width(model.model.visual, len(model.model.visual.blocks) - 1)
    return grid[1] * grid[2] * width * 2


def _weight_bytes(model: Any, adapter: Adapter | None) -> int:
    stored = sum(p.numel() * p.element_size() for p in _unique(model))
    return stored - (adapters.quantisation_savings_bytes(model, adapter) if adapter else 0)


def _choose_pass(fixed: int, bytes_per_image: dict[bool, int], batch_size: int, capacity: int) -> tuple[bool, int]:
    """Return the first choice that fits: checkpointing (the keys) and number of images per pass."""
    for checkpointing, per_image in bytes_per_image.items():
        for n in _divisors(batch_size):
            if _total(fixed, per_image, n) <= capacity:
                return checkpointing, n
    return True, 1


def _alternatives(
    config: Any, fixed_settings: dict[str, Any], trainable: Trainable, adapter: Adapter | None, optimizer: OptimizerName
) -> Iterator[tuple[str, int]]:
    """Yield changes that save memory, with the total at one image per pass."""
    nothing = Trainable(0, False, 0)
    changes: dict[str, tuple[Trainable, Adapter | None, OptimizerName]] = {}
    if optimizer not in ("adamw_8bit", "adafactor"):
        changes["AdamW with 8-bit states (-adamw8bit)"] = (trainable, adapter, "adamw_8bit")
    if trainable.everything or trainable.n_language_layers > 4:
        changes["fewer layers: the last four blocks and layers (-k4)"] = (Trainable(4, True, 4), None, optimizer)
    if trainable.everything or trainable.n_language_layers > 1:
        changes["fewer layers: the last block and layer"] = (Trainable(), None, optimizer)
    if trainable != nothing:
        changes["LoRA (-lora)"] = (nothing, Adapter(), optimizer)
    changes["LoRA over 4-bit weights (-qlora4)"] = (nothing, Adapter(n_bits=4), optimizer)
    for name, (parts, lora, smaller) in changes.items():
        other = plan(config, parts, optimizer=smaller, adapter=lora, **fixed_settings)
        yield name, other.total_bytes


def describe(plan: MemoryPlan) -> Iterator[str]:
    """Yield the plan as lines of text."""
    yield f"{plan.n_parameters:,} parameters, {plan.n_trainable:,} trained:"
    for name, n_parameters in plan.parameters_by_module.items():
        yield f"    {name}: {n_parameters:,}"
    yield "memory in GiB:"
    for label, n_bytes in (
        ("weights", plan.weight_bytes),
        ("gradients", plan.gradient_bytes),
        ("optimizer", plan.optimizer_bytes),
        ("average of the weights", plan.average_bytes),
        ("gathered from all processes", plan.gathered_bytes),
        ("trained weights in bf16", plan.cast_bytes),
        ("DoRA, per pass", plan.dora_bytes),
        ("activations, per step", plan.activation_bytes_per_step),
        ("activations, per image", plan.activation_bytes_per_image),
        ("stored with checkpointing", plan.checkpointed_bytes_per_image),
        ("recomputed per layer", plan.recomputed_bytes_per_image),
    ):
        yield f"    {label:28} {n_bytes / GIB:7.2f}"
    checkpointing = "on" if plan.gradient_checkpointing else "off"
    choice = f"{plan.micro_batch_size} image(s) per pass, checkpointing {checkpointing}"
    total = f"{plan.total_bytes / GIB:.2f} GiB including CUDA context and fragmentation"
    if plan.fits:
        yield f"choice for {plan.capacity_bytes / GIB:.1f} GiB: {choice}: {total}"
    else:
        yield from describe_misfit(plan)
    yield f"image cache on disk: {plan.cache_bytes_per_image / 1e6:.2f} MB per image"


def describe_misfit(plan: MemoryPlan) -> Iterator[str]:
    """Yield the sizes of a plan that does not fit, and of the alternatives."""
    capacity = plan.capacity_bytes / GIB
    yield (
        f"THIS DOES NOT FIT into {capacity:.1f} GiB: one image per pass with checkpointing takes "
        f"{plan.total_bytes / GIB:.2f} GiB, of which {plan.fixed_bytes / GIB:.2f} GiB do not depend on the batch"
    )
    for name, n_bytes in sorted(plan.alternatives.items(), key=lambda item: -item[1]):
        yield f"    {'fits' if n_bytes <= plan.capacity_bytes else 'no  '} {n_bytes / GIB:7.2f} GiB with {name}"
    if not any(n_bytes <= plan.capacity_bytes for n_bytes in plan.alternatives.values()):
        yield "    none of these fits: allow fewer visual tokens (--max-tokens), or use a device with more memory"


def _total(fixed: int, per_image: int, n_images: int) -> int:
    return int((fixed + per_image * n_images) * _FRAGMENTATION) + _CONTEXT_BYTES


def _divisors(n: int) -> list[int]:
    """Return the divisors of n in descending order: micro-batch sizes that divide the batch."""
    return [i for i in range(n, 0, -1) if n % i == 0]


def _unique(model: Any) -> list[torch.Tensor]:
    return list({id(parameter): parameter for parameter in model.parameters()}.values())
