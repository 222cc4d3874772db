"""A stage that fails, for example on a wrong option, leaves the output of earlier runs unchanged."""

import dataclasses
from types import SimpleNamespace

import pytest

import baselines
import build_dataset
import clean
import export_dataset
import make_tiny_model
import report
import sample_shop
import scrape
import zero_shot
from skincare import runlog, stage
from skincare.dataset import splitting
from skincare.errors import StageError
from skincare.evaluation import comparison
from skincare.files import replacing_folder
from skincare.inference import predictions
from skincare.labels import skincare_labels
from skincare.paths import SPLITS, Layout
from skincare.reporting import gate
from skincare.sample import shop
from skincare.tables import CATALOGUE, CatalogueRow
from tests.dataset_helpers import jpeg, pack, url, write_catalogue, write_dataset_files, write_images
from tests.helpers import prediction

CATEGORIES = skincare_labels().names


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "root")


def content(layout):
    """Return path -> bytes of all files except logs and state databases."""
    files = [path for path in layout.root.rglob("*") if path.is_file() and path.suffix not in (".log", ".sqlite")]
    return {path.relative_to(layout.root).as_posix(): path.read_bytes() for path in files}


def cleaned(layout):
    ids = [str(10_000_000 + i) for i in range(9)]
    write_catalogue(layout, {one: CATEGORIES[i % 3] for i, one in enumerate(ids)})
    write_images(layout, {f"{one}_1": jpeg(pack(i, 320)) for i, one in enumerate(ids)})
    assert stage.execute("clean", clean.Config(root=layout.root), layout, clean.run) == 0


def test_missing_original_images_do_not_empty_the_clean_dataset(layout):
    cleaned(layout)
    before = content(layout)
    layout.product_images.rename(layout.root / "elsewhere")
    assert stage.execute("clean", clean.Config(root=layout.root), layout, clean.run) == 1
    (layout.root / "elsewhere").rename(layout.product_images)
    assert content(layout) == before
    for typo in ({"catalogue": layout.root / "no.csv"}, {"thresholds": {"nonsense": 3.0}}):
        assert stage.execute("clean", clean.Config(root=layout.root, **typo), layout, clean.run) in (1, 2)
        assert content(layout) == before


def test_a_leaking_split_does_not_replace_the_manifest_or_dataset(layout, monkeypatch):
    cleaned(layout)
    settings = build_dataset.Config(root=layout.root)
    assert stage.execute("build_dataset", settings, layout, build_dataset.run) == 0
    before = content(layout)
    original = splitting.leakage
    monkeypatch.setattr(splitting, "leakage", lambda *args: dataclasses.replace(original(*args), same_group=0.5))
    for seed in (1, 2):
        other = dataclasses.replace(settings, seed=seed, resplit=True)
        assert stage.execute("build_dataset", other, layout, build_dataset.run) == 1
        assert content(layout) == before


def test_the_sample_shop_does_not_replace_a_user_catalogue(layout):
    CATALOGUE.write(layout.catalogue, [CatalogueRow("Mine", url("10000001"), "Oil")])
    before = content(layout)
    with pytest.raises(StageError, match="not the sample shop's"):
        sample_shop.run(sample_shop.Config(root=layout.root, port=0), layout)
    assert content(layout) == before
    layout.catalogue.unlink()
    shop.stock(layout, seed=0)
    first = content(layout)
    shop.stock(layout, seed=1)
    assert content(layout) != first, "the sample shop replaces its own catalogue"
    CATALOGUE.write(layout.catalogue, [CatalogueRow("Mine", "https://www.lookfantastic.com/a/10000001.html", "Oil")])
    with pytest.raises(StageError, match="not the sample shop's"):
        shop.stock(layout, seed=0)


def test_an_export_does_not_replace_its_source_dataset(layout):
    write_dataset_files(layout, dict.fromkeys(SPLITS, 2))
    before = content(layout)
    for kind in ("llamafactory", "webdataset"):
        for folder in (layout.dataset("train").parent, layout.root / "csv_data"):
            (layout.root / "csv_data").mkdir(exist_ok=True)
            (layout.root / "csv_data" / "images.csv").write_text("mine")
            settings = export_dataset.Config(root=layout.root, format=kind, to=str(folder))
            with pytest.raises(StageError, match="no earlier export"):
                export_dataset.run(settings, layout)
    assert content(layout) == {**before, "csv_data/images.csv": b"mine"}


@pytest.mark.parametrize("kind", ["llamafactory", "webdataset"])
def test_an_interrupted_export_can_be_repeated(layout, monkeypatch, kind):
    write_dataset_files(layout, dict.fromkeys(SPLITS, 2))
    settings = export_dataset.Config(root=layout.root, format=kind)
    with monkeypatch.context() as patched:
        patched.setattr(export_dataset, "_write_credits", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_dataset.run(settings, layout)
    for _ in range(2):
        export_dataset.run(settings, layout)
    assert (layout.export(kind) / "dataset_card.md").is_file()


def test_a_failed_release_gate_keeps_its_baseline(layout, tmp_path, monkeypatch):
    file, written = tmp_path / "baseline.json", []
    monkeypatch.setattr(gate.release_gate, "read_baseline", lambda *_: "baseline")
    monkeypatch.setattr(gate.release_gate, "write_baseline", lambda *args: written.append(args))
    for module, name in ((report, "_table"), (gate.Gate, "_source"), (report.report_views, "headline_table")):
        monkeypatch.setattr(module, name, lambda *_: "")
    monkeypatch.setattr(report.report_texts, "notice", lambda _: None)
    monkeypatch.setattr(report.report_pages, "render", lambda *_: SimpleNamespace(markdown="", html=""))
    data = SimpleNamespace(after=None, images=[], stages={}, labels=CATEGORIES, target="category")
    monkeypatch.setattr(report.report_data, "gather", lambda _: data)
    for verdict in ("failed", "passed"):
        judged = gate.release_gate.Verdict(verdict, 0.0, 1, 1, *[0.5] * 5, {})
        monkeypatch.setattr(gate.release_gate, "judge", lambda *_, judged=judged: judged)
        report.run(report.Config(root=layout.root, gate=file, write_gate_baseline=file), layout)
        assert len(written) == (verdict == "passed")


def test_baselines_of_other_images_do_not_replace_a_comparison(layout):
    run = layout.finetune_log("r")
    one, other = ([prediction(f"{i}_1", "Oil", "Oil")] for i in (1, 2))
    predictions.write_jsonl(run / "test_predictions.jsonl", one)
    predictions.write_jsonl(layout.baselines / "majority.jsonl", one)
    comparison.compare_with_baselines(layout, run)
    before = (run / "baselines.json").read_bytes()
    assert b"majority" in before
    predictions.write_jsonl(layout.baselines / "majority.jsonl", other)
    comparison.compare_with_baselines(layout, run)
    assert (run / "baselines.json").read_bytes() == before


def test_the_tiny_model_is_not_written_into_a_foreign_folder(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(StageError, match="choose another folder"):
        make_tiny_model.run(make_tiny_model.Config(out=tmp_path), Layout(tmp_path))


def test_a_folder_is_replaced_atomically(tmp_path):
    folder = tmp_path / "model"
    with replacing_folder(folder) as building:
        (building / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder) as building:
        (building / "b").write_text("half")
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert {path.name for path in folder.iterdir()} == {"a"}
    with replacing_folder(folder) as building:
        (building / "b").write_text("new")
    assert {path.name for path in folder.iterdir()} == {"b"}
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


STAGES = {
    "scrape": (scrape, {"catalogue": "no.csv"}), "clean": (clean, {"catalogue": "no.csv"}),
    "zero_shot": (zero_shot, {"model": "no/such"}), "baselines": (baselines, {"model": "no/such"}),
    "build_dataset": (build_dataset, {"catalogue": "no.csv"}),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_a_failed_start_leaves_all_files_unchanged(layout, name):
    module, typo = STAGES[name]
    typo = {key: layout.root / value if key == "catalogue" else value for key, value in typo.items()}
    write_dataset_files(layout, dict.fromkeys(SPLITS, 1))
    write_catalogue(layout, {"20000000": "Oil"})
    layout.summary(name).parent.mkdir(parents=True, exist_ok=True)
    layout.summary(name).write_text("{}")
    before = content(layout)
    assert stage.execute(name, module.Config(root=layout.root, **typo), layout, module.run) in (1, 2)
    assert content(layout) == before


def test_the_interruption_advice_holds_for_each_stage(layout):
    assert clean.Config().resume_hint(layout) == f"continue with `{runlog.command()}`"
    assert build_dataset.Config().resume_hint(layout).startswith("nothing was changed; start again with `python ")
