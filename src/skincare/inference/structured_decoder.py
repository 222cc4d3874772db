"""Decoders of structured answers: JSON that is generated freely, or limited to the schema of products.

Both give each field's mean log-probability (`skincare.inference.field_confidence`).
"""

from collections.abc import Sequence
from typing import Any, Final

import torch

from skincare.errors import StageError
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.field_confidence import field_log_probabilities, token_ends
from skincare.labels import Labels
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.json_constraint import JsonConstraint
from skincare.modeling.prompt_encoder import Grid, PromptEncoder
from skincare.product.facts import MAX_TEXT_CHARACTERS, N_INGREDIENTS
from skincare.product.schema import FIELDS, json_schema

# Tokens of an answer with its end token. product_facts.py shortens texts to 200 characters and lists to ten
# ingredients: the longest such answers have 1,700 characters, about 500 of Qwen's tokens.
MAX_ANSWER_TOKENS: Final = 768

# Of a text and of the list of ingredients, as product_facts.py shortens them.
_LENGTHS: Final = {"maxLength": MAX_TEXT_CHARACTERS, "maxItems": N_INGREDIENTS}


class StructuredDecoder:
    """Greedy decoding of a product as JSON, with a `constraint` or without."""

    def __init__(
        self, network: CachedVLM, encoder: PromptEncoder, constraint: JsonConstraint | None = None
    ) -> None:  # fmt: skip
        self.name = "constrained" if constraint else "generate"
        self.network = network
        self.encoder = encoder
        self.constraint = constraint

    def __call__(
        self, grids: Sequence[Grid], features: Sequence[torch.Tensor], hints: Sequence[str] = ()
    ) -> list[DecoderOutput]:
        """Return the text up to the end token, at most `MAX_ANSWER_TOKENS` or what the model's context leaves."""
        batch = self.encoder.inference_batch(grids, hints).to(self.network.device)
        n_prompt = len(batch.prompt_prefix) + batch.input_ids.shape[1]
        n_left = self.network.model.config.text_config.max_position_embeddings - n_prompt
        if n_left < 1:
            raise StageError(f"A prompt of {n_prompt} tokens leaves no token of the model's context for an answer")
        generated = self.network.generate(
            self.encoder, batch, features, min(MAX_ANSWER_TOKENS, n_left), constraint=self.constraint,
            with_log_probabilities=True,
        )  # fmt: skip
        return [
            self._output(one.tokens, one.log_probabilities, is_finished=one.is_finished) for one in generated
        ]  # fmt: skip

    def _output(self, tokens: Sequence[int], scores: Sequence[float], *, is_finished: bool) -> DecoderOutput:
        text = self.encoder.decode(tokens)
        fields = field_log_probabilities(text, token_ends(tokens, self.encoder.decode), scores, FIELDS)
        rounded = tuple((name, round(value, 6)) for name, value in fields.items())
        return DecoderOutput(text, len(tokens), is_finished, field_log_probabilities=rounded)


def product_constraint(network: CachedVLM, encoder: PromptEncoder) -> JsonConstraint:
    """Return the constraint to the schema of products, with the labels as categories."""
    n_logits = network.model.config.text_config.vocab_size
    return JsonConstraint(product_schema(encoder.labels), encoder.tokenizer, n_logits, encoder.end_token_id)


def product_schema(labels: Labels) -> dict[str, Any]:
    """Return the JSON schema of answers: that of products, in which the category is one of the labels or null.

    Texts and lists are at most as long as those of datasets, so that a text that repeats itself ends, and the fields
    after it have a value.
    """
    schema = _bounded(json_schema())
    category = {"anyOf": [{"enum": list(labels.names)}, {"type": "null"}]}
    return {**schema, "properties": {**schema["properties"], "category": category}}


def _bounded(schema: Any) -> Any:
    """Return a JSON schema with the lengths of `_LENGTHS`."""
    if isinstance(schema, list):
        return [_bounded(one) for one in schema]
    if isinstance(schema, dict):
        return {key: _LENGTHS.get(key, _bounded(value)) for key, value in schema.items()}
    return schema
