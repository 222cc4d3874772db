"""Commands, files, options and numbers of README.md and docs/ are true."""

import json
import re

import pytest
from benchmarks.photo_scores import readme_table

from skincare.labels import skincare_labels
from skincare.paths import REPOSITORY, Layout

CATEGORIES = skincare_labels().names

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
BOTH = README + BENCHMARKS
FOLDERS = (REPOSITORY / "src", REPOSITORY / "benchmarks")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for folder in FOLDERS for path in folder.rglob("*.py"))


def test_every_script_is_explained_and_every_explained_script_is_there():
    named = set(re.findall(r"python src/(\w+\.py)", README))
    assert named == {path.name for path in (REPOSITORY / "src").glob("*.py")}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|models|tests|docs|benchmarks)/[\w/.\-]+)`", BOTH))))
def test_named_files_exist(path):
    if not path.startswith("models/finetuned"):
        assert (REPOSITORY / path).exists()


@pytest.mark.parametrize("name", ["README.md", *sorted(path.name for path in (REPOSITORY / "docs").glob("*.md"))])
def test_links_and_images_exist(name):
    path = REPOSITORY / name if name == "README.md" else REPOSITORY / "docs" / name
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert all("://" in link or (path.parent / link).is_file() for link in links), links
    assert name != "README.md" or any(link.endswith(".png") for link in links)


def test_every_table_of_the_benchmarks_names_its_command_and_its_results():
    for section in BENCHMARKS.split("\n## ")[1:-1]:
        assert re.search(r"python benchmarks/\w+\.py", section), section
        files = re.findall(r"`(\w+\.json)`", section)
        assert files, section
        assert all((REPOSITORY / "benchmarks" / "results" / file).is_file() for file in files), files
    scripts = set(re.findall(r"python (benchmarks/\w+\.py)", BOTH))
    assert all((REPOSITORY / script).is_file() for script in scripts)


def test_the_architecture_names_every_package_and_only_modules_that_exist():
    package = REPOSITORY / "src" / "skincare"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", ARCHITECTURE, re.MULTILINE)
    assert {name for name, _ in rows} == folders
    for name, modules in rows:
        for module in re.findall(r"`([\w/]+\.py)`", modules):
            assert (package / name / module).is_file() or (REPOSITORY / module).is_file(), f"{name}/{module}"
    for dotted in re.findall(rf"`((?:{'|'.join(folders)})\.\w+)", ARCHITECTURE):
        assert (package / f"{dotted.replace('.', '/')}.py").is_file(), dotted


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(?:[^`]* )?(--[a-z\-]+)", BOTH))))
def test_named_options_exist(option):
    field = option.removeprefix("--").replace("-", "_")
    assert re.search(rf"^    {field}: ", SOURCES, re.MULTILINE) or option == "--help"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|\n    )make ([a-z\-]+)", README))))
def test_named_make_targets_exist(target):
    assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text()


def test_the_table_of_real_photos_is_what_the_benchmark_wrote():
    result = json.loads((REPOSITORY / "benchmarks" / "results" / "real_photos.json").read_text(encoding="utf-8"))
    assert README.split("<!-- real-photos -->")[1].split("<!-- /real-photos -->")[0].strip() == readme_table(result)


def test_all_categories_are_named():
    opening = README.split("\n## ")[0].replace("\n", " ")
    assert all(category in opening for category in CATEGORIES)


def test_written_files_are_those_of_the_layout():
    layout = Layout(REPOSITORY)
    for path in (
        layout.catalogue, layout.images_table, layout.failures_table, layout.cleaning_report, layout.split_manifest,
        layout.plot("blur_histogram"), layout.plot("dataset_split"), layout.plot("cm_before_training"),
        layout.report_html, layout.stage_log("scrape"),
    ):  # fmt: skip
        assert layout.relative(path).rpartition("/")[2] in README


def test_the_result_table_is_one_that_the_pipeline_wrote():
    """docs/sample_report.json is the log/report.json of the run that the README shows."""
    scores = json.loads((REPOSITORY / "docs" / "sample_report.json").read_text())["results"]["scores"]
    table = README.split("<!-- sample-result -->")[1].split("<!-- /sample-result -->")[0]
    for row in scores:
        if row["label"] in ("Accuracy", "Macro F1", "Test images (products)"):
            assert f"| {row['label']} | {row['before']} | {row['after']} | {row['difference']} |" in table


def test_the_table_of_the_product_sample_is_one_that_its_run_scored():
    """docs/sample_products.json holds the results of log/score_products.json of that run."""
    results = json.loads((REPOSITORY / "docs" / "sample_products.json").read_text(encoding="utf-8"))["results"]
    text = (REPOSITORY / "docs" / "products.md").read_text(encoding="utf-8")
    table = text.split("<!-- sample-products -->")[1].split("<!-- /sample-products -->")[0]
    for system in results["systems"]:
        fields = {one["field"]: one for one in results[system]["fields"]}
        cells = [field_cell(fields[name]) for name in ("category", "size", "forNightOrMorning")]
        assert f"| {' | '.join(cells)} |" in table, (system, cells)
    paired = results["finetuned_minus_majority"]
    for name in ("category", "size"):
        one = paired[name]
        values = [round(100 * one[key]) for key in ("difference", "low", "high")]
        assert f"{values[0]:+} points ({values[1]:+} to {values[2]:+}" in table.replace("\n", " ")


def field_cell(scores):
    """Return a field's F1 with its interval, in percent."""
    low, high = (round(100 * scores[key]) for key in ("f1_low", "f1_high"))
    return f"{round(100 * scores['f1'])} % ({low} to {high} %)"


def test_the_memory_table_of_structured_answers_is_that_of_the_results():
    file = REPOSITORY / "benchmarks" / "results" / "structured_memory_cpu.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    text = (REPOSITORY / "docs" / "products.md").read_text(encoding="utf-8")
    table = text.split("<!-- structured-memory -->")[1].split("<!-- /structured-memory -->")[0]
    measured = [memory_cells(row) for row in rows if "total_mib" in row]
    assert table.strip().splitlines()[2:] == [f"| {' | '.join(cells)} |" for cells in measured]


def memory_cells(row):
    """Return planned and measured memory of a pass as cells of the table."""
    return (
        row["recipe"], f"{row['n_layers']} + {row['n_vision_blocks']}", row["checkpointing"], str(row["answer_tokens"]),
        str(row["images"]), f"{row['planned_mib']:,.0f}", f"{row['total_mib']:,.0f}",
        f"{row['planned_to_measured']:.2f}",
    )  # fmt: skip
