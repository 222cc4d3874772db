"""The options that run_all.py gives to the stages."""

import pytest

import run_all
from skincare.errors import StageError
from skincare.paths import Layout


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def finetune_options(layout, **changes):
    return run_all.stage_options("finetune", run_all.Config(root=layout.root, **changes), layout, "")


def finish_run(layout, name):
    layout.finetune_log(name).mkdir(parents=True)
    (layout.finetune_log(name) / "test_metrics.json").write_text("{}")
    layout.training_state(name).mkdir(parents=True)
    layout.summary("finetune").write_text("{}")


def test_the_sample_replaces_its_finished_run(layout):
    assert "--overwrite" in finetune_options(layout, sample=True)
    finish_run(layout, "sample")
    options = finetune_options(layout, sample=True)
    assert "--overwrite" in options
    assert "--resume" not in options


def test_an_interrupted_run_is_resumed_and_not_replaced(layout):
    layout.training_state("sample").mkdir(parents=True)
    options = finetune_options(layout, sample=True)
    assert "--resume" in options
    assert "--overwrite" not in options


def test_a_finished_run_on_real_data_is_never_replaced(layout):
    finish_run(layout, "reference")
    assert not {"--overwrite", "--resume"} & set(finetune_options(layout))


def test_labels_for_the_sample_are_an_error(layout, tmp_path):
    config = run_all.Config(sample=True, labels=tmp_path / "labels.toml")
    with pytest.raises(StageError, match="leave one of the two out"):
        run_all.run(config, layout)
