"""Serve predictions over HTTP: POST /predict, health checks, metrics, and a page for the browser.

By the text on the pack, a model, or both, as predict.py does; or in front of an OpenAI-compatible server such as vLLM.
SIGTERM completes the accepted requests and exits; SIGHUP loads the newest model, then replaces the old one.

In: a fine-tuned model, if there is one; SKINCARE_API_KEY in the environment, if requests must carry a key.
Out: answers as JSON; log/serve.json at the end.
Command: python src/serve.py [--by model] [--host 0.0.0.0] [--port 8000]
Time: the reader is ready in about 3 s; a model as long as it takes to load. See docs/serving.md.
"""

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.inference.image_predictor import PredictorName, PredictorSettings, is_by_reader, newest_model
from skincare.labels import labels_of
from skincare.modeling.settings import DecoderName, Dtype
from skincare.paths import Layout
from skincare.prompts import Target
from skincare.runlog import Summary
from skincare.serving.limits import Limits
from skincare.text_reading.ocr import EngineName

if TYPE_CHECKING:
    from skincare.serving.answers import ImageAnswer
    from skincare.serving.worker import LoadPredictor

logger = logging.getLogger(__name__)

KEY_VARIABLE: Final = "SKINCARE_API_KEY"
# Images per batch: the reader takes them one by one, so a batch would only delay the first answer.
_READER_BATCH: Final = 1
_BACKEND_BATCH: Final = 32
# Details of an answer that its row in --answers does not have.
_NOT_RECORDED: Final = frozenset(["lines", "overlay", "rival"])


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    resumes: ClassVar[bool] = False

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all interfaces."""
    port: int = 8000
    """Port to listen on; 0 for a free one, which the log names."""
    target: Target = "category"
    """category, or product: also the structured answer, as predict.py --target product."""
    by: PredictorName = "auto"
    """reader: the pack's text; model: a fine-tuned model; fused: both; auto: as predict.py chooses."""
    model: str = ""
    """A model folder or hub name, the newest run if left out; with --backend openai the name of the served model."""
    decoder: DecoderName | None = None
    """How a model answers, as in predict.py."""
    dtype: Dtype = "auto"
    """Dtype of a model's weights; auto: that of the checkpoint."""
    ocr: EngineName = "rapidocr"
    """The OCR engine."""
    min_confidence: float | None = None
    """Abstain below this probability; the threshold of the run or the reader if left out."""
    workers: int = 0
    """Processes that hold the predictor; 0: one for a model, one per core for the reader."""
    max_batch: int = 16
    """Images in one batch of a model."""
    max_wait_ms: float = 10.0
    """Time that an idle worker waits for more images to fill a batch."""
    allow_urls: bool = False
    """Accept image URLs in requests; they are fetched from public addresses only."""
    answers: Path | None = None
    """Append every answer to this file, one JSON line per image as predict.py writes them, for drift.py."""
    backend: Literal["local", "openai"] = "local"
    """openai: send the images to an OpenAI-compatible server (vLLM, SGLang) at --base-url."""
    base_url: str = ""
    """Address of that server, such as http://localhost:8001/v1; its key is read from OPENAI_API_KEY."""
    limits: Limits = field(default_factory=Limits)


def run(config: Config, layout: Layout) -> Summary:
    """Serve until SIGTERM or SIGINT."""
    _check(config)
    try:
        from skincare.serving import app, batcher, http_server, image_urls, metrics, service, worker
    except ImportError as error:
        raise MissingInputError(
            f"package {error.name}", "this Python", "Install it with `python -m pip install -r requirements-serve.txt`."
        ) from error
    load, n_workers, max_batch = _predictor(config, layout)
    measured = metrics.Metrics()
    counts: Counter[str] = Counter()

    async def main() -> None:
        queue = batcher.Batcher(
            load, config.limits, measured, n_workers=n_workers, max_batch=max_batch,
            max_wait_s=config.max_wait_ms / 1e3,
        )  # fmt: skip
        parts = service.Service(
            queue, config.limits, measured,
            urls=image_urls.ImageUrls(config.limits.max_body_bytes) if config.allow_urls else None,
            api_key=os.environ.get(KEY_VARIABLE, ""), on_answers=_recorder(config.answers, counts, config.target),
            target=config.target,
        )  # fmt: skip
        server = http_server.Server(
            app.create_app(parts), config.host, config.port, config.limits,
            on_reload=queue.reload, on_drain=parts.start_draining,
        )  # fmt: skip
        await http_server.serve(server, parts)

    http_server.raise_file_limit()
    try:
        asyncio.run(main())
    except worker.WorkerLoadError as error:
        failure = StageError(str(error))
        failure.exit_code = error.exit_code
        raise failure from error
    return Summary(headline=f"{sum(counts.values())} images answered", counts=dict(sorted(counts.items())))


def _predictor(config: Config, layout: Layout) -> "tuple[LoadPredictor, int, int]":
    """Return what a worker loads, the number of workers, and the images per batch."""
    if config.backend == "openai":
        from skincare.serving.openai_backend import OpenAiLoader

        loader = OpenAiLoader(
            config.base_url, config.model, labels_of(layout), config.limits.max_pixels,
            config.limits.batch_timeout_s, config.min_confidence,
        )  # fmt: skip
        return loader, config.workers or 1, _BACKEND_BATCH
    from skincare.serving.predictor import LocalPredictorLoader

    settings = PredictorSettings(
        by=config.by, model=config.model, decoder=config.decoder, dtype=config.dtype, ocr=config.ocr,
        min_confidence=config.min_confidence, batch_size=config.max_batch, target=config.target,
    )  # fmt: skip
    settings.check()
    labels_of(layout)
    is_reader = is_by_reader(settings, layout)
    if not is_reader and not settings.model:
        newest_model(layout)  # a missing model is reported before a worker imports torch
    n_workers = config.workers or ((os.cpu_count() or 1) if is_reader else 1)
    return (
        LocalPredictorLoader(settings, layout, config.limits.max_pixels),
        n_workers,
        _READER_BATCH if is_reader else config.max_batch,
    )


def _recorder(
    path: Path | None, counts: Counter[str], target: Target
) -> "Callable[[Sequence[ImageAnswer]], None]":  # fmt: skip
    """Return what counts answers by status and appends them to a file, which is opened each time, so it can rotate."""

    def record(answers: "Sequence[ImageAnswer]") -> None:
        counts.update(one.status for one in answers)
        if path is None:
            return
        from skincare.serving.answers import plain_answer

        rows = [plain_answer(one, target, _NOT_RECORDED) for one in answers]
        try:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        except OSError as error:
            # A full disk must not stop the service.
            logger.error("%s: %s", path, error.strerror)

    return record


def _check(config: Config) -> None:
    """Raise StageError for numbers out of range and for options that contradict each other."""
    config.limits.check()
    if not 0 <= config.port <= 65535:
        raise StageError(f"--port {config.port} is no port")
    if config.workers < 0 or config.max_batch < 1 or config.max_wait_ms < 0:
        raise StageError("--workers and --max-wait-ms must be at least 0, --max-batch at least 1")
    if (config.backend == "openai") != bool(config.base_url):
        raise StageError("--backend openai and --base-url belong together")
    if config.backend == "openai" and (config.by != "auto" or config.decoder):
        raise StageError("--backend openai: leave --by and --decoder out; the server answers")
    if config.backend == "openai" and config.target == "product":
        raise StageError("--backend openai answers with categories: leave --target product out")


def main() -> None:
    """Run the stage from the command line."""
    stage.main("serve", Config, run)


if __name__ == "__main__":
    main()
