"""Manifests record what a run read and wrote; runs.py finds, compares, verifies and deletes."""

import dataclasses
import json
import os
import time
from dataclasses import dataclass

import pytest

import runs
from skincare import stage
from skincare.errors import MissingInputError, StageError
from skincare.inference import predictions
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.runs import content, differences, manifest, retention
from tests.helpers import prediction


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    seed: int = 0
    run: str = ""
    rate: float = 0.1


def execute(name, layout, write, *, results=None, **options):
    """Run a stage that calls `write`; return its manifest."""

    def work(config, layout):
        write()
        return Summary("done", {"seen": 1}, results or {})

    before = set(layout.runs.glob("*.json"))
    assert stage.execute(name, Config(root=layout.root, **options), layout, work) == 0
    (path,) = set(layout.runs.glob("*.json")) - before
    return manifest.read(path)


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def layout(tmp_path):
    """A root on which clean.py, then build_dataset.py have run."""
    found = Layout(tmp_path)
    put(found.images_table, "raw")
    put(found.product_images / "a_1_1.jpg", "image a")

    def clean():
        put(found.clean_table, "clean")
        put(found.clean_images / "a_1_1.jpg", "image a")
        put(found.clean_images / "deep" / "b_2_1.jpg", "image b")

    def build():
        for split in ("train", "val", "test"):
            put(found.dataset(split), f"[{split}]")

    execute("clean", found, clean)
    execute("build_dataset", found, build, seed=7)
    return found


def test_a_manifest_names_inputs_outputs_and_the_run_that_wrote_them(layout):
    cleaned, built = manifest.read_all(layout)
    assert set(cleaned.inputs) == {"csv_data/images_id_full.csv", "product_images"}
    assert cleaned.inputs["csv_data/images_id_full.csv"].sha256 == content.sha256_of(layout.images_table)
    assert cleaned.outputs["clean_dataset/images"].n_files == 2
    assert built.inputs["clean_dataset/images"] == cleaned.outputs["clean_dataset/images"]
    assert built.parents == (cleaned.id,)
    assert cleaned.parents == ()
    assert built.context["seed"] == 7
    assert built.config["rate"] == 0.1
    assert len(built.context["labels"]) == 64


def test_a_run_on_other_content_has_no_parent(layout):
    put(layout.clean_table, "edited by hand")
    put(layout.clean_images / "c_3_1.jpg", "added by hand")
    built = execute("build_dataset", layout, lambda: None)
    assert built.parents == ()


def test_the_newest_of_equal_runs_is_the_parent(layout):
    again = execute("clean", layout, lambda: None)
    assert execute("build_dataset", layout, lambda: None).parents == (again.id,)


def test_an_input_written_during_the_run_is_marked(layout):
    def build():
        time.sleep(0.02)
        put(layout.clean_table, "changed under way")

    built = execute("build_dataset", layout, build)
    assert built.inputs["clean_dataset/annotations/clean_annotations.csv"].changed
    assert not built.inputs["clean_dataset/images"].changed


def test_a_training_run_records_its_model_and_predictions(layout):
    def train():
        put(layout.finetuned_model("a") / "model.safetensors", "weights")
        put(layout.finetune_log("a") / "test_predictions.jsonl", "{}")

    trained = execute("finetune", layout, train, results={"run": "a", "test_accuracy": 0.5})
    assert trained.run == "a"
    assert "models/finetuned/a" in trained.outputs
    assert "log/finetune/a/test_predictions.jsonl" in trained.outputs
    assert trained.results["test_accuracy"] == 0.5


def test_an_export_records_the_run_and_the_folder_that_it_wrote(layout):
    trained = train(layout, "a")
    folder = layout.root / "elsewhere" / "a-4bit"
    exported = execute(
        "export", layout, lambda: put(folder / "config.json", "{}"), results={"run": "a", "folder": str(folder)}
    )
    assert set(exported.outputs) == {"elsewhere/a-4bit"}
    assert exported.inputs["models/finetuned/a"] == trained.outputs["models/finetuned/a"]
    assert exported.parents[-1] == trained.id


def test_a_model_whose_card_the_report_wrote_is_unchanged(layout):
    train(layout, "a")
    execute("report", layout, lambda: put(layout.finetuned_model("a") / "README.md", "card"))
    states = {one.path: one.state for one in differences.states(layout, manifest.read_all(layout))}
    assert states["models/finetuned/a"] == "unchanged"


def test_a_failed_run_leaves_no_manifest(layout):
    def fail(config, layout):
        raise StageError("no")

    before = sorted(layout.runs.glob("*.json"))
    assert stage.execute("clean", Config(root=layout.root), layout, fail) == 1
    assert sorted(layout.runs.glob("*.json")) == before


def test_a_name_that_cannot_be_recorded_does_not_fail_the_stage(layout):
    put(layout.clean_images / "line\nbreak.jpg", "x")
    work = lambda config, layout: Summary("done")  # noqa: E731
    assert stage.execute("clean", Config(root=layout.root), layout, work) == 0
    assert "no manifest was written" in layout.stage_log("clean").read_text()


def test_runs_are_found_by_id_its_end_training_name_and_stage(layout):
    first = execute("finetune", layout, lambda: None, results={"run": "a"})
    second = execute("finetune", layout, lambda: None, results={"run": "b"})
    found = manifest.read_all(layout)
    assert manifest.find(found, first.id) == first
    assert manifest.find(found, first.short_id) == first
    assert manifest.find(found, "a") == first
    assert manifest.find(found, "finetune") == second
    with pytest.raises(StageError, match="could be any of"):
        manifest.find(found, first.id[:2])
    with pytest.raises(MissingInputError):
        manifest.find(found, "nothing")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "\0", '{"format": 1, "inputs": {"a": {"sha256": "../x", "n_bytes": 1}}}']
)
def test_a_damaged_manifest_is_left_out_with_a_warning(layout, caplog, text):
    intact = manifest.read_all(layout)
    (layout.runs / "20260101T000000000-clean-00000000.json").write_text(text)
    assert manifest.read_all(layout) == intact
    assert "is no manifest" in caplog.text


def test_differences_name_files_options_and_figures(layout):
    one = execute("clean", layout, lambda: None, results={"deep": {"accuracy": 0.25}, "kind": "x"})

    def change():
        put(layout.clean_images / "new_9_1.jpg", "n")
        put(layout.clean_images / "a_1_1.jpg", "other image")
        (layout.clean_images / "deep" / "b_2_1.jpg").unlink()

    other = execute("clean", layout, change, results={"deep": {"accuracy": 0.75}, "kind": "x"}, rate=0.2)
    rows = {one.name: one for one in differences.differences(layout, one, other)}
    assert set(rows) == {"clean_dataset/images", "rate", "deep.accuracy"}
    assert rows["deep.accuracy"].change == "+0.5"
    assert (rows["rate"].before, rows["rate"].after) == ("0.1", "0.2")
    expected = "1 added (new_9_1.jpg); 1 removed (deep/b_2_1.jpg); 1 changed (a_1_1.jpg)"
    assert rows["clean_dataset/images"].change == expected
    assert differences.differences(layout, one, one) == []


def test_verification_reads_content_not_times(layout):
    execute("clean", layout, lambda: None)
    path = layout.clean_images / "a_1_1.jpg"
    assert {one.state for one in differences.states(layout, manifest.read_all(layout))} == {"unchanged"}
    time_before = path.stat()
    path.write_text("image X")
    os.utime(path, ns=(time_before.st_atime_ns, time_before.st_mtime_ns))
    layout.clean_table.unlink()
    states = {one.path: one for one in differences.states(layout, manifest.read_all(layout))}
    assert states["clean_dataset/images"].state == "changed"
    assert states["clean_dataset/images"].detail == "1 changed (a_1_1.jpg)"
    assert states["clean_dataset/annotations/clean_annotations.csv"].state == "missing"
    assert states["clean_dataset/train.json"].state == "unchanged"


def test_a_changed_listing_is_refused(layout):
    cleaned = manifest.read_all(layout)[0]
    artifact = cleaned.outputs["clean_dataset/images"]
    path = layout.run_listing(artifact.sha256)
    path.write_text(path.read_text().replace("a_1_1.jpg", "../a.jpg"))
    with pytest.raises(StageError, match="was changed"):
        manifest.listing(layout, artifact)


@pytest.fixture
def settled(monkeypatch):
    """Let the hashes of new files be cached too."""
    monkeypatch.setattr(content, "_SETTLED_AFTER_S", -1.0)


def test_verification_reads_every_file_although_its_hash_is_cached(layout, settled, monkeypatch):
    execute("clean", layout, lambda: None)
    read = []
    monkeypatch.setattr(content, "sha256_of", lambda path: read.append(path.name) or "0" * 64)
    execute("clean", layout, lambda: None)
    assert read == []
    cleaned = manifest.find(manifest.read_all(layout), "clean")
    assert {one.state for one in differences.states(layout, [cleaned])} == {"changed"}
    assert sorted(read) == ["a_1_1.jpg", "b_2_1.jpg", "clean_annotations.csv"]


def test_the_hash_cache_follows_a_change_that_keeps_size_and_time(layout, settled):
    path = layout.clean_images / "a_1_1.jpg"
    old = time.time() - 100
    os.utime(path, (old, old))
    with content.ContentHasher(layout) as hasher:
        before = hasher.file(path).sha256
    path.write_text("image X")
    os.utime(path, (old, old))
    with content.ContentHasher(layout) as hasher:
        assert hasher.file(path).sha256 == content.sha256_of(path) != before


def test_links_and_temporary_files_are_no_content(layout, tmp_path):
    listing = content.ContentHasher(layout, use_cache=False).listing(layout.clean_images)
    (layout.clean_images / "link.jpg").symlink_to(layout.clean_table)
    put(layout.clean_images / ".abc.part", "half")
    assert content.ContentHasher(layout, use_cache=False).listing(layout.clean_images) == listing


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "C:/x", "a\\..\\b", ""])
def test_paths_that_leave_the_folder_are_unsafe(path):
    assert not content.is_safe_path(path)


def train(layout, name, **options):
    return execute(
        "finetune",
        layout,
        lambda: put(layout.finetuned_model(name) / "config.json", name),
        results={"run": name},
        **options,
    )


def test_prune_keeps_the_newest_models_and_what_can_be_resumed(layout):
    for name in ("a", "b", "c", "d"):
        train(layout, name)
    layout.training_state("b").mkdir()
    assert [one.run for one in retention.old_models(layout, manifest.read_all(layout), keep=1)] == ["a", "c"]
    assert retention.old_models(layout, manifest.read_all(layout), keep=4) == []
    config = runs.Config(root=layout.root, action="prune", keep=3)
    assert runs.run(config, layout).headline.startswith("1 models would be deleted")
    assert layout.finetuned_model("a").is_dir()
    assert runs.run(dataclasses.replace(config, yes=True), layout).headline == "1 models deleted"
    assert not layout.finetuned_model("a").exists()
    assert len(manifest.read_all(layout)) == 6


def test_prune_keeps_a_model_that_a_kept_run_was_trained_from(layout):
    train(layout, "base")
    child = train(layout, "child")
    path = layout.run_manifest(child.id)
    value = json.loads(path.read_text())
    value["inputs"]["models/finetuned/base"] = value["outputs"]["models/finetuned/child"]
    path.write_text(json.dumps(value))
    assert retention.old_models(layout, manifest.read_all(layout), keep=1) == []


def test_two_training_runs_are_compared_on_their_test_images(layout, capsys):
    def predict(name, categories):
        predicted = [prediction(f"{i}_1", "Toner", category) for i, category in enumerate(categories)]
        predictions.write_jsonl(layout.finetune_log(name) / "test_predictions.jsonl", predicted)

    for name, categories in (("a", ["Toner", "Mask", "Oil", "Oil"]), ("b", ["Toner", "Toner", "Toner", "Oil"])):
        execute("finetune", layout, lambda n=name, c=categories: predict(n, c), results={"run": name})
    config = runs.Config(root=layout.root, action="compare", names=("a", "b"))
    runs.run(config, layout)
    expected = "accuracy on 4 test images of 4 products: 25.0% -> 75.0%, difference +50.0 points"
    assert expected in capsys.readouterr().out
    predict("b", ["Oil"] * 4)
    runs.run(config, layout)
    assert "have changed since" in capsys.readouterr().out


def test_the_stage_prints_tables_and_json(layout, capsys):
    run = lambda *names, **options: runs.run(runs.Config(root=layout.root, names=names, **options), layout)  # noqa: E731
    run(action="list")
    assert "build_dataset" in capsys.readouterr().out
    run("build_dataset", action="show")
    text = capsys.readouterr().out
    assert "made from\n  20" in text
    assert "-clean-" in text
    run("clean", action="show", json=True)
    assert json.loads(capsys.readouterr().out)["stage"] == "clean"
    assert run(action="verify").exit_code == 0
    layout.dataset("val").unlink()
    assert run(action="verify").exit_code == 1
    with pytest.raises(StageError, match="two runs"):
        run("clean", action="compare")
