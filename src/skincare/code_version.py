"""A digest of the code that made a cached result, so that a changed program computes it again."""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


def code_version(modules: Iterable[ModuleType], libraries: Iterable[str]) -> str:
    """Return 16 hex digits over the source of our modules and the versions of the installed libraries."""
    digest = hashlib.sha256(" ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries).encode())
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]
