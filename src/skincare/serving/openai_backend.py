"""An OpenAI-compatible server (vLLM, SGLang) as the predictor: one chat completion per image, restricted to the labels.

The request restricts the answer with `structured_outputs: {"choice": [...]}` (vLLM 0.12 and newer) and asks for the
log-probabilities of the answer's tokens. `probability` is the product of the probabilities of the generated tokens, as
the model gave them before the restriction. `top` holds the labels that the alternatives of the first token stand for.
Source: vLLM's documentation, "Structured Outputs" and "OpenAI-Compatible Server".
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from PIL import Image

from skincare import images
from skincare.errors import StageError
from skincare.html_pages import data_uri
from skincare.inference.answer_parser import parser_of
from skincare.inference.image_predictions import (
    ImagePrediction,
    InputImage,
    RankedLabel,
    abstain_below,
    failed,
)
from skincare.labels import UNKNOWN, Labels
from skincare.serving.answers import ImageAnswer, image_answer
from skincare.serving.predictor import decoded
from skincare.serving.worker import Job

API_KEY_VARIABLE: Final = "OPENAI_API_KEY"
# The largest number of alternatives that vLLM returns by default.
_TOP_LOGPROBS: Final = 20
_CONNECT_TIMEOUT_S: Final = 5.0
_N_THREADS: Final = 32
_MAX_TOKENS: Final = 32
_MAX_REPLY_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class OpenAiLoader:
    """Connects to the server at `base_url`, such as http://localhost:8001/v1; an empty `model` takes its only one."""

    base_url: str
    model: str
    labels: Labels
    max_pixels: int
    timeout_s: float
    min_confidence: float | None = None

    def __call__(self) -> "OpenAiPredictor":
        """Return the predictor; raises StageError if the server does not answer or lacks the model."""
        return OpenAiPredictor(self)


class OpenAiPredictor:
    """Sends each image of a batch as a chat completion, all at the same time: the server batches them."""

    def __init__(self, settings: OpenAiLoader) -> None:
        self._settings = settings
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_N_THREADS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        if key := os.environ.get(API_KEY_VARIABLE, ""):
            self._session.headers["Authorization"] = f"Bearer {key}"
        self._model = self._served_model()
        self._threads = ThreadPoolExecutor(_N_THREADS)
        self._parser = parser_of(settings.labels)
        self.name = f"{self._model}, OpenAI-compatible server"

    def predict(self, jobs: Sequence[Job]) -> list[ImageAnswer]:
        """Return one answer per job, in order; what the server refuses has the status `failed`."""
        return list(self._threads.map(self._predict, jobs))

    def _predict(self, job: Job) -> ImageAnswer:
        image = decoded(job, self._settings.max_pixels)
        if image.pixels is None:
            return image_answer(failed(job.name, image.reason))
        try:
            reply = self._post(_request(self._model, self._settings.labels, image))
            choice = reply["choices"][0]
            text = choice["message"]["content"]
            row = self._row(job, text if isinstance(text, str) else "", choice.get("logprobs"))
        except requests.Timeout:
            row = failed(job.name, "backend_timeout", "failed")
        except requests.HTTPError as error:
            status = "error" if error.response is None else error.response.status_code
            row = failed(job.name, f"backend_http_{status}", "failed")
        except requests.RequestException:
            row = failed(job.name, "backend_unreachable", "failed")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            row = failed(job.name, "backend_malformed_answer", "failed")
        return image_answer(row)

    def _row(self, job: Job, text: str, logprobs: Any) -> ImagePrediction:
        labels = self._settings.labels
        parsed = self._parser.parse(text, is_finished=True)
        tokens = logprobs["content"] if isinstance(logprobs, Mapping) and logprobs.get("content") else []
        probability = math.exp(min(0.0, sum(float(one["logprob"]) for one in tokens))) if tokens else None
        category = parsed.category or UNKNOWN
        parent = labels.family_of(category) if labels.has_families and parsed.category else ""
        top = _top(labels, parsed.category, probability, tokens)[: job.top]
        row = ImagePrediction(
            job.name, category, probability if parsed.category else None, parsed.status, text, parent=parent, top=top
        )
        return abstain_below(row, self._settings.min_confidence)

    def _served_model(self) -> str:
        """Return the name of the model; raises StageError."""
        base = self._settings.base_url
        if urlsplit(base).scheme not in ("http", "https"):
            raise StageError(f"--base-url {base!r} is no http address")
        try:
            reply = self._session.get(f"{base.rstrip('/')}/models", timeout=(_CONNECT_TIMEOUT_S, 10))
            reply.raise_for_status()
            names = [str(one["id"]) for one in reply.json()["data"]]
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise StageError(f"{base} does not list its models ({type(error).__name__}); is the server up?") from error
        if self._settings.model and self._settings.model not in names:
            raise StageError(f"{base} does not serve {self._settings.model!r} but {', '.join(names[:5])}")
        if not self._settings.model and len(names) != 1:
            raise StageError(f"{base} serves {len(names)} models; name one with --model")
        return self._settings.model or names[0]

    def _post(self, body: dict[str, Any]) -> Any:
        address = f"{self._settings.base_url.rstrip('/')}/chat/completions"
        timeouts = (_CONNECT_TIMEOUT_S, self._settings.timeout_s)
        with self._session.post(address, json=body, timeout=timeouts, allow_redirects=False, stream=True) as reply:
            reply.raise_for_status()
            content = reply.raw.read(_MAX_REPLY_BYTES + 1, decode_content=True)
        if len(content) > _MAX_REPLY_BYTES:
            raise ValueError("reply too large")
        return json.loads(content)


def _request(model: str, labels: Labels, image: InputImage) -> dict[str, Any]:
    """Return the body of a chat completion."""
    assert image.pixels is not None
    uri = data_uri(images.encode_jpeg(Image.fromarray(image.pixels)), "jpeg")
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": labels.system_prompt()},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": uri}},
                    {"type": "text", "text": labels.question},
                ],
            },
        ],
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
        "logprobs": True,
        "top_logprobs": _TOP_LOGPROBS,
        "structured_outputs": {"choice": list(labels.names)},
    }


def _top(
    labels: Labels, category: str | None, probability: float | None, tokens: Sequence[Any]
) -> tuple[RankedLabel, ...]:
    """Return the answered label and the labels that begin with an alternative of the first token, best first."""
    if category is None or probability is None:
        return ()
    found = {category: probability}
    for one in tokens[0].get("top_logprobs") or ():
        beginning = str(one["token"]).strip()
        matching = [name for name in labels.names if beginning and name.startswith(beginning)]
        # A first token that several labels share does not say which of them it would have become.
        if len(matching) == 1 and matching[0] != category:
            found.setdefault(matching[0], math.exp(min(0.0, float(one["logprob"]))))
    ranked = [RankedLabel(name, value) for name, value in sorted(found.items(), key=lambda one: -one[1])]
    return tuple(sorted(ranked, key=lambda one: one.label != category))
