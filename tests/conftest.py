"""What several tests share: the embedded tiny model, loaded once, and where the real material may lie."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from skincare.labels import skincare_labels
from tests.browser import opened_browser

# Side by side, the files that take longest come first: nobody waits for a long one at the end.
LONG_FILES = (
    "test_pipeline", "test_distributed", "test_recipes", "test_training", "test_real_data", "test_out_of_memory",
    "test_training_interrupt", "test_family_stages", "test_training_recovery", "test_shards", "test_export",
)  # fmt: skip

# A shell starts background jobs, such as a test run, with SIGINT ignored, which the stages under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: i for i, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later garbage collection: it stays until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real material is not beside the repository ({REAL_DATA})")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny_encoder():
    from skincare.modeling.loading import load_processor
    from skincare.modeling.prompt_encoder import PromptEncoder
    from skincare.paths import TINY_MODEL

    return PromptEncoder(load_processor(TINY_MODEL), skincare_labels())


@pytest.fixture
def tiny_model() -> Iterator:
    import torch

    from skincare.modeling.loading import load_model
    from skincare.paths import TINY_MODEL

    yield load_model(TINY_MODEL, torch.device("cpu"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of tiny random models, by model family."""
    from tests.family_models import MODEL_TYPES, write_family_model

    root = tmp_path_factory.mktemp("families")
    return {one: write_family_model(one, root / one) for one in MODEL_TYPES}


@pytest.fixture(scope="session")
def browser() -> Iterator:
    with opened_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def tab(browser):
    """One tab for all tests of a file; what it complained of and what it asked for stand in `tab.trouble`."""
    opened = browser.new_page()
    opened.trouble = []
    opened.on("console", lambda message: opened.trouble.append(message.text))
    opened.on("pageerror", lambda error: opened.trouble.append(str(error)))
    opened.on("request", lambda request: opened.trouble.append(request.url))
    yield opened
    opened.close()
