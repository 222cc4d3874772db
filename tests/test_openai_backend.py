"""The OpenAI-compatible backend against a stub that speaks the API as vLLM documents it."""

import base64
import io
import json
import math
from contextlib import contextmanager

import pytest
import requests

from skincare import images
from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.serving.openai_backend import OpenAiLoader
from skincare.serving.worker import Job
from tests.helpers import noise_image
from tests.local_server import LocalServer, Request, ok
from tests.local_server import serving as local
from tests.serving_fakes import serving

LABELS = skincare_labels()


def token(text, probability, top=()):
    alternatives = [{"token": name, "logprob": math.log(share)} for name, share in top]
    return {"token": text, "logprob": math.log(probability), "top_logprobs": alternatives}


SERUM = {
    "choices": [
        {
            "message": {"role": "assistant", "content": "Serum"},
            "logprobs": {
                "content": [
                    token("Ser", 0.8, [("Ser", 0.8), ("Mask", 0.1), ("B", 0.05), ("To", 0.03)]),
                    token("um", 0.5),
                ]
            },
        }
    ]
}


class Stub:
    """The chat completions of a server; `reply` decides what it answers, `seen` holds the requests."""

    def __init__(self, reply=SERUM, code=200):
        self.seen = []
        self.reply = reply
        self.code = code

    def __call__(self, request: Request):
        length = int(request.headers["Content-Length"])
        self.seen.append((json.loads(request.rfile.read(length)), request.headers.get("Authorization")))
        content = self.reply if isinstance(self.reply, bytes) else json.dumps(self.reply).encode()
        request.reply(content, self.code, "application/json")


Request.do_POST = Request.do_GET


@contextmanager
def backend(stub, models=("skincare",), **options):
    listing = json.dumps({"data": [{"id": name} for name in models]}).encode()
    with local({"/v1/models": ok(listing), "/v1/chat/completions": stub}) as server:
        yield loader(server, **options)


def loader(server: LocalServer, **options):
    return OpenAiLoader(
        **{
            "base_url": f"{server.url}/v1",
            "model": "",
            "labels": LABELS,
            "max_pixels": 10_000,
            "timeout_s": 1.0,
            **options,
        }
    )


def photo():
    buffer = io.BytesIO()
    noise_image(40, 30).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_request_restricts_the_answer_to_the_labels_and_carries_the_image(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "upstream")
    stub = Stub()
    with backend(stub) as load:
        load().predict([Job(photo(), "a.png")])
    (body, key) = stub.seen[0]
    assert body["model"] == "skincare"
    assert body["structured_outputs"] == {"choice": list(LABELS.names)}
    assert (body["logprobs"], body["temperature"]) == (True, 0)
    system, user = body["messages"]
    assert system["content"] == LABELS.system_prompt()
    image, text = user["content"]
    assert text == {"type": "text", "text": LABELS.question}
    header, _, encoded = image["image_url"]["url"].partition(",")
    assert header == "data:image/jpeg;base64"
    assert images.decode(base64.b64decode(encoded)).size == (30, 40)
    assert key == "Bearer upstream"


def test_the_answer_has_the_probability_of_its_tokens_and_unambiguous_alternatives():
    with backend(Stub()) as load:
        (answer,) = load().predict([Job(photo(), "a.png")])
    assert (answer.category, answer.parent, answer.outcome) == ("Serum", "Leave-on care", "answered")
    assert answer.probability == pytest.approx(0.4)
    # "B" begins four labels, so it stands for none of them.
    assert [(one.label, one.probability) for one in answer.top] == [("Serum", 0.4), ("Mask", 0.1), ("Toner", 0.03)]


def test_an_answer_below_the_threshold_abstains():
    with backend(Stub(), min_confidence=0.5) as load:
        (answer,) = load().predict([Job(photo())])
    assert (answer.category, answer.status) == (None, "abstained")


@pytest.mark.parametrize(
    ("stub", "reason"),
    [
        (Stub(code=500), "backend_http_500"),
        (Stub(b"no json"), "backend_malformed_answer"),
        (Stub({"choices": []}), "backend_malformed_answer"),
        (Stub([]), "backend_malformed_answer"),
        (Stub(b"x" * 1_100_000), "backend_malformed_answer"),
    ],
)
def test_what_the_server_does_wrong_is_a_failed_answer(stub, reason):
    with backend(stub) as load:
        (answer,) = load().predict([Job(photo())])
    assert (answer.status, answer.reason) == ("failed", reason)


def test_an_answer_without_logprobs_has_no_probability():
    plain = {"choices": [{"message": {"content": "Toner"}, "logprobs": None}]}
    with backend(Stub(plain)) as load:
        (answer,) = load().predict([Job(photo())])
    assert (answer.category, answer.probability, answer.top) == ("Toner", None, [])


def test_a_broken_or_huge_image_is_not_sent():
    stub = Stub()
    large = io.BytesIO()
    noise_image(200, 200).save(large, "PNG")
    with backend(stub) as load:
        found = load().predict([Job(b"no image"), Job(large.getvalue())])
    assert [one.status for one in found] == ["unreadable", "unreadable"]
    assert found[1].reason == "too_many_pixels: 200 x 200"
    assert not stub.seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "ftp://a"}, "no http address"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "is the server up"),
        ({"model": "other"}, "does not serve 'other' but skincare"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_at_the_start(options, message):
    with backend(Stub(), **options) as load, pytest.raises(StageError, match=message):
        load()


def test_several_models_need_a_name():
    with backend(Stub(), models=("a", "b")) as load, pytest.raises(StageError, match="serves 2 models"):
        load()


def test_the_service_answers_in_front_of_it():
    with backend(Stub()) as load, serving(load, max_batch=8) as running:
        reply = requests.post(f"{running.url}/predict", files=[("images", ("a.png", photo()))] * 3)
        assert [one["category"] for one in reply.json()["predictions"]] == ["Serum"] * 3
        assert reply.json()["predictor"] == "skincare, OpenAI-compatible server"
