"""A model for prompts of one image, with caches: vision features and a batch of prompts in, scores of labels out.

The passes give the model's own results and skip what a short answer does not need: the vision tower starts after its
frozen blocks (`skincare.modeling.vision_tower`), the prompt prefix is cached (`skincare.modeling.prompt_prefix`), the
last language layer returns only the last tokens, and the language head is applied where a token of the answer is
predicted.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional
from transformers import DynamicCache

from skincare.errors import StageError
from skincare.modeling import vision_tower
from skincare.modeling.fused_norms import fuse_frozen_norms
from skincare.modeling.generation import Generated, generated_rows, keep_only, until_end
from skincare.modeling.heads import ClassificationHead, load_head
from skincare.modeling.json_constraint import JsonConstraint
from skincare.modeling.label_smoothing import SmoothedTargets
from skincare.modeling.language_layers import DeepStack, causal_mask, copy_at, run_layers, tree_mask
from skincare.modeling.pass_functions import PassFunctions, vision_mlp
from skincare.modeling.prompt_encoder import IGNORED, Batch, Grid, Patches, PromptEncoder
from skincare.modeling.prompt_prefix import PromptPrefixCache
from skincare.modeling.staging import to_device
from skincare.modeling.token_trie import TokenTrie


class CachedVLM(nn.Module):
    """A model of any supported family, such as Qwen2-VL, with the passes that training and inference use.

    Which vision blocks and norms are frozen is read from `requires_grad` here: freeze first. `n_uncached_blocks` at the
    end of the tower are left out of the cached part even where they are frozen.
    """

    def __init__(self, model: Any, n_uncached_blocks: int = 0) -> None:
        super().__init__()
        fuse_frozen_norms(model)
        self.model = model
        self.head: ClassificationHead | None = None
        self.n_cached_blocks = min(
            vision_tower.count_frozen_blocks(model.model.visual), len(model.model.visual.blocks) - n_uncached_blocks
        )
        self.functions = PassFunctions()
        self._prompt_prefixes = PromptPrefixCache(model.model.language_model)

    def add_head(self, n_labels: int) -> dict[str, nn.Parameter]:
        """Add a new classification head; return its parameters by name."""
        self.head = ClassificationHead(self.model.config.text_config.hidden_size, n_labels).to(self.device)
        return {n: p for n, p in self.parameters_by_name().items() if n.startswith("classification_head.")}

    def load_head(self, folder: Path, n_labels: int) -> None:
        """Load the classification head of a model's folder, if it has one."""
        self.head = load_head(folder, self.model.config.text_config.hidden_size, n_labels)
        if self.head is not None:
            self.head.to(self.device).requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the checkpoint; its trainable part is fp32."""
        return self.model.config.dtype

    @property
    def caches_prompt_prefix(self) -> bool:
        """Return whether a training pass can use the cached prompt prefix."""
        return self._prompt_prefixes.n_frozen_layers > 0 and self._can_split_layers

    @property
    def _can_split_layers(self) -> bool:
        """Return whether a pass can give layers cached keys and values and call their parts.

        Gradient checkpointing discards the layers' caches, and sharded layers exist only during a pass of the module.
        """
        return not self.is_checkpointing and not isinstance(self, FSDPModule)

    @property
    def is_checkpointing(self) -> bool:
        """Return whether the layers recompute their activations in the backward pass."""
        return _is_checkpointing(self.model)

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Return the model's parameters and those of the head."""
        of_head = dict(self.head.named_parameters()) if self.head is not None else {}
        return dict(self.model.named_parameters()) | {f"classification_head.{name}": p for name, p in of_head.items()}

    def autocast(self) -> AbstractContextManager:
        """Return a context that computes in bf16 if the checkpoint is bf16, although trainable tensors are fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def vision_features(self, images: Sequence[Patches]) -> list[torch.Tensor]:
        """Return each image's (n_patches, feature width) features after the cached blocks, without a graph."""
        patches = to_device([image.patches for image in images], self.device)
        width = vision_tower.feature_width(self.model.model.visual, -1)
        if any(one.shape[1] != width for one in patches):
            raise StageError(
                f"The processor gives patches of {patches[0].shape[1]} numbers, the vision tower takes {width}: "
                "the processor is not this model's"
            )
        if self.n_cached_blocks < 0:
            return patches
        with self.autocast():
            grids = [image.grid for image in images]
            return vision_tower.frozen_features(self.model.model.visual, patches, grids, self.n_cached_blocks)

    @torch.no_grad()
    def visual_tokens(self, grids: Sequence[Grid], features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the (n_visual_tokens, n_levels * width) embeddings of images, see `vision_tower.visual_embeddings`."""
        with self.autocast():
            return vision_tower.visual_embeddings(self.model.model.visual, features, grids, self.n_cached_blocks)

    def forward(
        self, batch: Batch, features: Sequence[torch.Tensor], smoothed: SmoothedTargets | None = None
    ) -> torch.Tensor:
        """Return the (B,) losses of the answers, each the mean over its tokens, so that long labels weigh the same."""
        return self._answer_losses(batch, self._hidden_states(batch, features), smoothed)

    def answer_losses_and_head_scores(
        self, batch: Batch, features: Sequence[torch.Tensor], smoothed: SmoothedTargets | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the (B,) losses of `forward` and the head's (B, n_labels) scores from before the answer."""
        assert self.head is not None
        hidden = self._hidden_states(batch, features)
        first = (batch.labels[:, -hidden.shape[1] :] != IGNORED).int().argmax(dim=1)
        rows = torch.arange(len(hidden), device=hidden.device)
        return self._answer_losses(batch, hidden, smoothed), self.head(hidden[rows, first - 1])

    def head_scores(self, batch: Batch, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the head's (B, n_labels) scores of a left-padded batch without answers."""
        assert self.head is not None
        return self.head(self._hidden_states(batch, features)[:, -1])

    def _answer_losses(self, batch: Batch, hidden: torch.Tensor, smoothed: SmoothedTargets | None) -> torch.Tensor:
        places, n_tokens = batch.answer_positions, batch.labels.shape[1]
        rows = places // n_tokens
        # A token is predicted at the position before it; the hidden states are those of the last tokens of each row.
        before = places - 1 - (rows + 1) * (n_tokens - hidden.shape[1])
        with self.autocast():
            logits = self.model.lm_head(hidden.flatten(0, 1).index_select(0, before))
        targets = batch.labels.flatten().index_select(0, places)
        token_losses = (smoothed or SmoothedTargets(0.0)).token_losses(logits.float(), targets)
        sums = torch.zeros(len(batch.grids), device=token_losses.device).index_add(0, rows, token_losses)
        return sums / (batch.labels != IGNORED).sum(dim=1)

    @torch.no_grad()
    def generate(
        self, encoder: PromptEncoder, batch: Batch, features: Sequence[torch.Tensor], max_new_tokens: int = 30,
        next_tokens: Callable[[Sequence[int]], Sequence[int]] | None = None,
        constraint: JsonConstraint | None = None, *, with_log_probabilities: bool = False,
    ) -> list[Generated]:  # fmt: skip
        """Generate greedily for a left-padded batch of prompts, equal to `model.generate(do_sample=False)`.

        `next_tokens` returns the tokens that are allowed after those generated so far; `constraint` limits the text to
        a JSON schema. Log-probabilities are those of the model without either.
        """
        end_tokens = torch.tensor([encoder.end_token_id, encoder.pad_token_id], device=self.device)
        position = batch.position_ids[0, :, -1:] + 1
        attention_mask = batch.padding_mask
        is_running = torch.ones(len(batch.grids), dtype=torch.bool, device=self.device)
        steps: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        rows = constraint.start(len(batch.grids)) if constraint else None
        with self.autocast():
            hidden, cache = self._language_model(batch, self._prompt_inputs(batch, features), 1, use_cache=True)
            while True:
                logits = self.model.lm_head(hidden[:, -1])
                if next_tokens is not None:
                    logits = keep_only(logits, [next_tokens(row) for row in generated_rows(steps, len(logits))])
                token = (rows.mask(logits) if rows else logits).argmax(dim=-1)
                if rows:
                    rows.accept(token.tolist())
                if with_log_probabilities:
                    scores.append(logits.float().log_softmax(dim=-1).gather(1, token[:, None])[:, 0])
                steps.append(token.where(is_running, end_tokens[0]))
                is_running &= ~torch.isin(token, end_tokens)
                if len(steps) == max_new_tokens or not is_running.any():
                    break
                if attention_mask is not None:
                    attention_mask = functional.pad(attention_mask, (0, 1), value=1)
                hidden = self._next_hidden_states(token, position, cache, attention_mask)
                position = position + 1
        found = [until_end(row, end_tokens.tolist()) for row in generated_rows(steps, len(batch.grids))]
        if not with_log_probabilities:
            return found
        rows_of_scores = torch.stack(scores, dim=1).tolist()
        return [
            replace(one, log_probabilities=tuple(row[: len(one.tokens)]))
            for one, row in zip(found, rows_of_scores, strict=True)
        ]

    def _next_hidden_states(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: Any, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the (B, 1, width) output of the language model for (B,) tokens that follow the cached ones."""
        words = self.model.get_input_embeddings()(tokens[:, None])
        mask = causal_mask(self._text_model, words, cache, padding_mask)
        return self._text_model.norm(run_layers(self._text_model, words, positions.expand(3, -1, -1), mask, cache))

    @torch.no_grad()
    def score_labels(self, batch: Batch, features: Sequence[torch.Tensor], trie: TokenTrie) -> torch.Tensor:
        """Return (B, n_names) log-likelihoods of whole labels, end token included, for a left-padded batch.

        Two passes: one over the prompt, then one over all nodes of the trie, each of which attends to the prompt and
        to its ancestors.
        """
        trie_tokens, depths, parents, leaves = to_device(
            [trie.tokens, trie.depths, trie.parents, trie.leaves], self.device
        )
        tokens = trie_tokens.expand(len(batch.grids), -1)
        positions = batch.position_ids[0, :, -1:] + 1 + depths
        with self.autocast():
            hidden, cache = self._language_model(batch, self._prompt_inputs(batch, features), 1, use_cache=True)
            nodes = self.model.get_input_embeddings()(tokens)
            mask = tree_mask(nodes, cache, batch.padding_mask, trie.attention_mask())
            of_nodes = self._text_model.norm(
                run_layers(self._text_model, nodes, positions.expand(3, -1, -1), mask, cache)
            )
            logits = self.model.lm_head(torch.cat([hidden[:, -1:], of_nodes], dim=1)).float()
        # Row 0 is the end of the prompt, row i + 1 is node i.
        totals = logits.logsumexp(dim=-1)
        parents, ends = parents + 1, leaves + 1
        node_scores = logits[:, parents, trie_tokens] - totals[:, parents]
        end_scores = logits[:, ends, trie.end_token_id] - totals[:, ends]
        return node_scores @ trie.paths.T.to(node_scores) + end_scores

    def hidden_states(self, batch: Batch, visual: torch.Tensor) -> torch.Tensor:
        """Return the (B, T, width) output of the language model for the given result of `visual_tokens`."""
        with self.autocast():
            return self._language_model(batch, visual, None, use_cache=False)[0]

    def _hidden_states(self, batch: Batch, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the (B, n_outputs, width) output of the language model for the last tokens."""
        with self.autocast():
            visual = self._prompt_inputs(batch, features)
            return self._language_model(batch, visual, batch.n_outputs, use_cache=False)[0]

    def _prompt_inputs(self, batch: Batch, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the embeddings of the batch's images, as `visual_tokens`."""
        if len(features) != len(batch.grids):
            raise ValueError(f"features of {len(features)} images for {len(batch.grids)} prompts")
        return vision_tower.visual_embeddings(
            self.model.model.visual, features, batch.grids, self.n_cached_blocks,
            self.functions.vision_mlp if self.training else vision_mlp,
        )  # fmt: skip

    def _language_model(
        self, batch: Batch, visual: torch.Tensor, n_outputs: int | None, *, use_cache: bool
    ) -> tuple[torch.Tensor, Any]:
        """Return the (B, n_outputs or T, width) output of the language model, and its keys and values.

        `visual`: the embeddings of the images, which replace those of the image tokens; DeepStack levels are added to
        the output of the first layers.
        """
        text, places = self._text_model, batch.image_positions
        if len(places) != len(visual):
            raise ValueError(f"{len(visual)} visual embeddings for {len(places)} image tokens in the prompts")
        words = self.model.get_input_embeddings()(batch.input_ids)
        inputs, *levels = visual.to(words.dtype).split(words.shape[-1], dim=1)
        hidden = copy_at(words, places, inputs)
        cache = self._prompt_prefixes.read(batch.prompt_prefix, len(batch.grids)) if batch.prompt_prefix else None
        if cache is None and use_cache:
            cache = DynamicCache()
        mask = causal_mask(text, hidden, cache, batch.padding_mask)
        hidden = run_layers(
            text, hidden, batch.position_ids, mask, cache, deepstack=DeepStack(levels, places),
            function=self.functions.language_layer if self.training and not use_cache else None,
            n_outputs=n_outputs if self._can_split_layers else None,
        )  # fmt: skip
        return text.norm(hidden), cache

    @property
    def _text_model(self) -> Any:
        return self.model.model.language_model


def _is_checkpointing(model: Any) -> bool:
    """Return whether gradient checkpointing is on; the attribute's name depends on the version of transformers."""
    is_new = hasattr(type(model), "is_activation_checkpointing")
    return model.is_activation_checkpointing if is_new else model.is_gradient_checkpointing
