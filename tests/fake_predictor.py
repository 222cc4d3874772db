"""A predictor for tests of the service; workers import this module, so it imports little."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from skincare.inference.image_predictions import ImagePrediction, RankedLabel
from skincare.product.schema import Product
from skincare.serving.answers import TextLine, image_answer

HOSTILE = '<img src=x onerror="document.title=1">'
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@dataclass(frozen=True)
class FakeLoader:
    """Loads a predictor; the content of `version_file` is its name, and a missing file fails to load."""

    version_file: Path | None = None
    seconds: float = 0.0

    def __call__(self):
        return FakePredictor(self.version_file.read_text() if self.version_file else "fake", self.seconds)


class FakePredictor:
    def __init__(self, name, seconds):
        self.name = name
        self._seconds = seconds

    def predict(self, jobs):
        return [self._answer(job) for job in jobs]

    def _answer(self, job):
        time.sleep(self._seconds)
        if "crash" in job.name:
            os._exit(9)
        if "hang" in job.name:
            time.sleep(600)
        if "raise" in job.name:
            raise RuntimeError("/secret/path/of/the/machine")
        if "slow" in job.name:
            time.sleep(1)
        top = tuple(RankedLabel(name, share) for name, share in (("Serum", 0.9), ("Mask", 0.05), ("Oil", 0.01)))
        row = ImagePrediction(job.name, "Serum", 0.9, "read", str(len(job.content)), top=top[: job.top])
        details = {}
        if job.detail and "overlay" in job.name:
            details = {"overlay": PIXEL, "rival": "Mask"}
        elif job.detail:
            box = [(0.1, 0.1), (0.5, 0.1), (0.5, 0.2), (0.1, 0.2)]
            details = {"lines": [TextLine(text=HOSTILE, confidence=0.9, box=box)]}
            row = replace(row, text=(HOSTILE,), parent="Leave-on care")
        if "unknown" in job.name:
            row = replace(row, category="Unknown", status="abstained")
        if "product" in job.name:
            product = Product(brand=HOSTILE, ingredients=("aqua", "parfum")).model_dump(mode="json")
            row = replace(row, product=product, confidences={"brand": 0.75, "size": 0.25})
        return image_answer(row, **details)
