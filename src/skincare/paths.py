"""Every folder and file name of the pipeline, spelled once.

`Layout(root)` gives a stage its paths; the root is the repository by default, `sample_run/` for the embedded
sample, and a temporary folder in tests. Reading a path creates nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
TINY_MODEL: Final = REPOSITORY / "models" / "tiny-qwen2-vl"
SPLITS: Final = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """The file layout below one root folder."""

    root: Path
    # The file of the option `--labels`.
    labels: Path | None = None

    @property
    def labels_file(self) -> Path | None:
        """Return the labels file of the command line, else that of the root; None if there is neither."""
        own = self.root / "labels.toml"
        return self.labels or (own if own.is_file() else None)

    # -- what scrape.py reads and writes
    @property
    def catalogue(self) -> Path:
        return self.root / "csv_data" / "skincare_products_clean.csv"

    @property
    def images_table(self) -> Path:
        return self.root / "csv_data" / "images_id_full.csv"

    def listed_products(self, source: str) -> Path:
        """Return the catalogue of the products that a source listed."""
        return self.root / "csv_data" / f"products_{source}.csv"

    @property
    def stated_facts(self) -> Path:
        return self.root / "csv_data" / "stated_facts.csv"

    @property
    def metadata_table(self) -> Path:
        return self.root / "csv_data" / "products_metadata.csv"

    @property
    def failures_table(self) -> Path:
        return self.root / "csv_data" / "scrape_failures.csv"

    @property
    def scrape_state(self) -> Path:
        return self.root / "csv_data" / "scrape_state.sqlite"

    @property
    def import_state(self) -> Path:
        return self.root / "csv_data" / "import_state.sqlite"

    @property
    def product_images(self) -> Path:
        return self.root / "product_images"

    # -- what clean.py writes
    @property
    def clean_images(self) -> Path:
        return self.root / "clean_dataset" / "images"

    @property
    def clean_table(self) -> Path:
        return self.root / "clean_dataset" / "annotations" / "clean_annotations.csv"

    @property
    def rejected_table(self) -> Path:
        return self.root / "clean_dataset" / "annotations" / "rejected.csv"

    @property
    def cleaning_report(self) -> Path:
        return self.root / "log" / "cleaning_report.log"

    def review_sheet(self, check: str) -> Path:
        """Return the page for marking images around the threshold of a check."""
        return self.root / "clean_dataset" / f"review_{check}.html"

    def review_table(self, check: str) -> Path:
        """Return the table of the images on that page."""
        return self.root / "clean_dataset" / "annotations" / f"review_{check}.csv"

    @property
    def threshold_calibration(self) -> Path:
        return self.root / "log" / "clean_calibration.json"

    @property
    def metrics_cache(self) -> Path:
        return self.root / ".cache" / "measures.sqlite"

    # -- what crop.py writes
    @property
    def cropped_images(self) -> Path:
        return self.root / "clean_dataset" / "focused"

    @property
    def crop_table(self) -> Path:
        return self.root / "clean_dataset" / "annotations" / "focused.csv"

    # -- what read_text.py writes
    @property
    def pack_text(self) -> Path:
        return self.root / "clean_dataset" / "annotations" / "pack_text.jsonl"

    # -- what product_facts.py writes
    @property
    def product_facts(self) -> Path:
        return self.root / "clean_dataset" / "annotations" / "products.jsonl"

    def product_answers(self, name: str) -> Path:
        """Return the structured answers of one system with their truths, as score_products.py writes them."""
        return self.root / "log" / "products" / f"{name}.jsonl"

    @property
    def ocr_cache(self) -> Path:
        """Return the cache of OCR results, from which an interrupted run resumes."""
        return self.root / ".cache" / "ocr.sqlite"

    # -- what build_dataset.py writes
    def dataset(self, split: str) -> Path:
        """Return the chat-format JSON of one of SPLITS."""
        return self.root / "clean_dataset" / f"{split}.json"

    def export(self, kind: str) -> Path:
        return self.root / "exports" / kind

    @property
    def image_cache(self) -> Path:
        return self.root / ".cache" / "images"

    @property
    def split_manifest(self) -> Path:
        return self.root / "clean_dataset" / "split_manifest.csv"

    # -- what the model stages write
    @property
    def baselines(self) -> Path:
        return self.root / "log" / "baselines"

    @property
    def zero_shot(self) -> Path:
        return self.root / "log" / "zero_shot"

    @property
    def ablations(self) -> Path:
        return self.root / "log" / "ablations"

    def finetune_log(self, run: str) -> Path:
        """Return the folder of histories and predictions of one training run."""
        return self.root / "log" / "finetune" / run

    def run_lock(self, run: str) -> Path:
        """Return the lock file of a run in training; outside the run's folders, which may be renamed."""
        return self.root / "log" / "finetune" / ".locks" / f"{run}.json"

    @property
    def tiny_product_model(self) -> Path:
        """Return the folder of the embedded model with tokens for structured answers."""
        return self.root / "models" / "tiny-product"

    def finetuned_model(self, run: str) -> Path:
        """Return the folder of one run's exported model."""
        return self.root / "models" / "finetuned" / run

    def training_state(self, run: str) -> Path:
        """Return the folder of the checkpoints from which a run is resumed."""
        return self.finetuned_model(run) / "state"

    def run_plots(self, run: str) -> Path:
        """Return the folder of one run's plots; those of the last finished run are also in plots/."""
        return self.finetune_log(run) / "plots"

    def is_interrupted(self, run: str) -> bool:
        """Return whether a training run has checkpoints but no result yet."""
        return self.training_state(run).exists() and not (self.finetune_log(run) / "test_metrics.json").is_file()

    def is_finished(self, run: str) -> bool:
        """Return whether a run has its result, or another model is in its folder."""
        is_model = (self.finetuned_model(run) / "config.json").is_file() and not self.training_state(run).exists()
        return is_model or (self.finetune_log(run) / "test_metrics.json").is_file()

    @staticmethod
    def replacement(run: str) -> str:
        """Return the temporary folder name of a run that will replace a finished one; not a valid run name."""
        return f".new/{run}"

    @staticmethod
    def replaced(run: str) -> str:
        """Return the temporary folder name of a replaced run during its removal."""
        return f".old/{run}"

    def exported_model(self, name: str) -> Path:
        """Return the folder of a checkpoint that export.py wrote."""
        return self.root / "models" / "exported" / name

    def export_record(self, name: str) -> Path:
        """Return the JSON of an export's evaluation and of its layer pruning."""
        return self.root / "log" / "export" / f"{name}.json"

    @property
    def finetune_plan(self) -> Path:
        return self.root / "log" / "finetune_plan.json"

    @property
    def comparison_table(self) -> Path:
        return self.root / "log" / "recipe_comparison.csv"

    @property
    def comparison_results(self) -> Path:
        """Return the folder of the results of a comparison's runs, from which it resumes."""
        return self.root / "log" / "recipe_comparison"

    def compared_run(self, name: str) -> str:
        """Return the folder name of a run of a comparison; not a valid run name of finetune.py."""
        return f".compared/{name}"

    @property
    def cache(self) -> Path:
        """Return the folder of everything that can be computed or fetched again."""
        return self.root / ".cache"

    @property
    def content_cache(self) -> Path:
        return self.root / ".cache" / "content.sqlite"

    @property
    def vision_cache(self) -> Path:
        return self.root / ".cache" / "vision"

    @property
    def answer_cache(self) -> Path:
        """Return the folder of the prediction cache, from which an evaluation resumes."""
        return self.root / ".cache" / "answers"

    @property
    def reader_cache(self) -> Path:
        """Return the folder of the pack reader fitted on the data of this root."""
        return self.root / ".cache" / "reader"

    # -- logs, plots, report
    def stage_log(self, stage: str) -> Path:
        """Return the log file of a stage; that of scrape.py has the documented name scraper.log."""
        return self.root / "log" / ("scraper.log" if stage == "scrape" else f"{stage}.log")

    def summary(self, stage: str) -> Path:
        """Return the JSON whose presence means that the stage is done."""
        return self.root / "log" / f"{stage}.json"

    @property
    def runs(self) -> Path:
        """Return the folder of the manifests, one for each run of a stage."""
        return self.root / "log" / "runs"

    def run_manifest(self, run_id: str) -> Path:
        return self.runs / f"{run_id}.json"

    def run_listing(self, digest: str) -> Path:
        """Return the listing of a folder that runs read or wrote, by its digest."""
        return self.runs / "listings" / f"{digest}.txt"

    def plot(self, name: str) -> Path:
        return self.root / "plots" / f"{name}.png"

    def overlay(self, image_id: str) -> Path:
        """Return the JPEG with the attribution overlay of an image."""
        return self.root / "plots" / "explain" / f"{image_id}.jpg"

    def attention_panels(self, image_id: str) -> Path:
        """Return the JPEG with the attention maps of an image."""
        return self.root / "plots" / "explain" / f"{image_id}_attention.jpg"

    @property
    def report_markdown(self) -> Path:
        return self.root / "report.md"

    @property
    def drift_page(self) -> Path:
        return self.root / "drift.html"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    # -- the embedded sample's own inputs
    @property
    def shop_truth(self) -> Path:
        return self.root / "csv_data" / "sample_shop_truth.json"

    def relative(self, path: Path) -> str:
        """Return `path` as the tables and datasets write it: relative to the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()
