"""An export folder is a model only when it is complete."""

from pathlib import Path

import pytest

from skincare.labels import skincare_labels
from skincare.modeling.loading import load_processor
from skincare.paths import TINY_MODEL
from skincare.training import model_export


def test_config_json_is_moved_last(tmp_path, tiny_model, monkeypatch):
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(Path(target)), replace(self, target))[1])
    assert model_export.write_model(tmp_path, tiny_model, None, load_processor(TINY_MODEL), skincare_labels())
    final = [path.name for path in moved if path.parent == tmp_path]
    assert final[-1] == "config.json"
    assert {"model.safetensors", "tokenizer.json", "generation_config.json"} <= set(final[:-1])


def test_an_interrupted_export_is_no_model(tmp_path, tiny_model, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    processor = load_processor(TINY_MODEL)
    monkeypatch.setattr(processor, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model_export.write_model(tmp_path, tiny_model, None, processor, skincare_labels())
    assert not (tmp_path / "config.json").exists()
