"""The options that run_all.py gives to the stages."""

from dataclasses import replace

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


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"max_epochs": 3}, "3"),
        ({"sample": True, "target": "product"}, "8"),
        ({"sample": True, "target": "product", "max_epochs": 3}, "3"),
    ],
)
def test_epochs_are_limited(layout, changes, epochs):
    options = finetune_options(layout, **changes)
    assert options[options.index("--max-epochs") + 1] == epochs
    assert "--max-epochs" not in finetune_options(layout, sample=True)


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


def test_the_product_sample_extends_the_model_before_it_is_used(layout):
    config = run_all.Config(root=layout.root, sample=True, target="product")
    stages = run_all.stages_of(config)
    assert stages.index("make_tiny_model") < stages.index("zero_shot")
    assert stages.index("product_facts") < stages.index("build_dataset")
    model = str(layout.tiny_product_model)
    assert model in run_all.stage_options("zero_shot", config, layout, "")
    assert model in run_all.stage_options("finetune", config, layout, "")
    assert run_all.stage_options("build_dataset", config, layout, "")[:3] == ["--target", "product", "--fields"]


def test_the_fields_of_structured_answers_are_passed_on_and_checked_before_any_stage(layout):
    config = run_all.Config(root=layout.root, target="product", fields=("category", "brand"))
    expected = ["--target", "product", "--fields", "category", "brand"]
    assert run_all.stage_options("build_dataset", config, layout, "") == expected
    assert run_all.stage_options("build_dataset", replace(config, sample=True), layout, "") == expected
    for changes in ({"fields": ("category", "price")}, {"fields": ("brand",)}, {"fields": ()}, {"target": "category"}):
        with pytest.raises(StageError, match="--fields"):
            run_all.run(replace(config, **changes, plan=True), layout)


def test_real_products_are_trained_without_the_embedded_model():
    stages = run_all.stages_of(run_all.Config(target="product"))
    assert "make_tiny_model" not in stages
    assert "score_products" in stages


def test_a_first_stage_of_the_other_target_is_an_error():
    with pytest.raises(StageError, match="--first score_products is none of the stages"):
        run_all.stages_of(run_all.Config(first="score_products"))


def test_the_samples_of_both_targets_have_their_own_folders():
    roots = [run_all.Config(sample=True, target=target).layout.root.name for target in ("category", "product")]
    assert roots == ["sample_run", "sample_product"]


def test_the_plan_runs_no_stage(layout, monkeypatch, caplog):
    monkeypatch.setattr(run_all, "_run_stage", lambda *_: pytest.fail("ran a stage"))
    config = run_all.Config(root=layout.root, target="product", first="finetune", plan=True)
    with caplog.at_level("INFO"):
        assert run_all.run(config, layout).counts == {"stages": 4}
    assert [record.getMessage() for record in caplog.records] == [
        f"python src/{name}.py" for name in ("finetune", "fuse", "score_products", "report")
    ]  # fmt: skip
    assert not config.writes_summary
