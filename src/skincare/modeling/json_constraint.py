"""Constrained decoding to a JSON schema: a schema in, the tokens that may follow each row's tokens out.

llguidance keeps one parser per row and returns a bit per token of the vocabulary. On one core, 151,936 logits and eight
rows, a step takes 4.2 ms with llguidance 1.9.1 and 7.4 ms with xgrammar 0.2.8, and the schema of products compiles in
3 ms instead of 6.6 s; xgrammar also admits control characters and special tokens inside strings.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from skincare.errors import StageError

# The separators of a compact answer, which datasets contain.
_COMPACT: Final = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_BITS: Final = 32


class JsonConstraint:
    """A schema compiled for a tokenizer; `start` gives the state of a batch."""

    def __init__(self, schema: Mapping[str, Any], tokenizer: Any, n_logits: int, end_token_id: int) -> None:
        """Compile; `n_logits` may exceed the tokenizer's entries, as in Qwen2-VL-2B (151,936 against 151,657).

        Raises StageError where llguidance is not installed or rejects the schema.
        """
        self._library = _llguidance()
        self._numpy = importlib.import_module("llguidance.numpy")
        hugging_face = importlib.import_module("llguidance.hf")
        self._tokenizer = hugging_face.from_tokenizer(tokenizer, n_vocab=n_logits, eos_token=end_token_id)
        self._grammar = self._library.LLMatcher.grammar_from_json_schema(json.dumps({**schema, "x-guidance": _COMPACT}))
        self.n_logits = n_logits
        self._end_token_id = end_token_id
        if message := self._library.LLMatcher(self._tokenizer, self._grammar).get_error():
            raise StageError(f"llguidance rejects the schema: {message}")

    def start(self, n_rows: int) -> "ConstrainedRows":
        """Return the state of `n_rows` answers without a token."""
        matchers = [self._library.LLMatcher(self._tokenizer, self._grammar) for _ in range(n_rows)]
        bits = self._numpy.allocate_token_bitmask(n_rows, self.n_logits)
        return ConstrainedRows(matchers, bits, self._numpy.fill_next_token_bitmask, self._end_token_id)


class ConstrainedRows:
    """The parsers of one batch."""

    def __init__(self, matchers: Sequence[Any], bits: Any, fill: Any, end_token_id: int) -> None:
        self._matchers = matchers
        self._bits = bits
        self._fill = fill
        self._end_token_id = end_token_id
        self._has_ended = [False] * len(matchers)

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (B, n_logits) logits with -inf for tokens that may not follow; finished rows stay as they are."""
        ended = torch.tensor(self._has_ended, device=logits.device)
        for row, matcher in enumerate(self._matchers):
            if matcher.is_stopped():
                # The answer is whole: the parser itself would let any token follow.
                self._bits[row] = 0
                self._bits[row, self._end_token_id // _BITS] = _bit(self._end_token_id)
            else:
                self._fill(matcher, self._bits, row)
        words = torch.from_numpy(self._bits).to(logits.device)
        shifts = torch.arange(_BITS, device=logits.device, dtype=torch.int32)
        is_allowed = ((words[:, :, None] >> shifts) & 1).bool().flatten(1)[:, : logits.shape[1]]
        return logits.masked_fill(~is_allowed & ~ended[:, None], float("-inf"))

    def accept(self, tokens: Sequence[int]) -> None:
        """Append one token to each row that is not finished."""
        for row, (matcher, token) in enumerate(zip(self._matchers, tokens, strict=True)):
            self._has_ended[row] |= token == self._end_token_id
            if not matcher.is_stopped():
                matcher.consume_token(token)


def _bit(token: int) -> int:
    """Return the signed 32-bit word in which only the bit of a token is set."""
    word = 1 << (token % _BITS)
    return word - (1 << _BITS) if word >= 1 << (_BITS - 1) else word


def _llguidance() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ImportError as error:
        raise StageError(
            "--decoder constrained needs llguidance for structured answers: `pip install llguidance==1.9.1`, or use "
            "--decoder generate"
        ) from error
