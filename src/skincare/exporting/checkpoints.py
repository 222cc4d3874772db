"""Writing of the exported checkpoint: a trained model in, a folder with merged, pruned or quantised weights out."""

import gc
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import torch

from skincare.dataset import hints
from skincare.errors import StageError
from skincare.evaluation import fusion, product_fusion
from skincare.exporting.labels_toml import FILE, write_labels
from skincare.exporting.layer_pruning import drop_layers
from skincare.exporting.source_run import SourceRun
from skincare.labels import Labels, labels_of_model
from skincare.modeling.freezing import count
from skincare.modeling.heads import load_head
from skincare.modeling.loading import default_device, load_model, load_processor
from skincare.modeling.quantisation import bitsandbytes_config
from skincare.text_reading import pack_products
from skincare.text_reading.reader import Reader
from skincare.training.model_export import write_model

WeightDtype = Literal["bfloat16", "float32"]
Quantisation = Literal["none", "8bit", "4bit"]

_N_BITS: Final = {"8bit": 8, "4bit": 4}
_DTYPE_BYTES: Final = {"bfloat16": 2, "float32": 4}

# The modules of a fusion of labels and of structured answers, each with the function that loads its reader.
_FUSIONS: Final[tuple[tuple[Any, Callable[[Path, Labels], Any]], ...]] = (
    (fusion, Reader.load), (product_fusion, pack_products.load)
)  # fmt: skip


def n_bits(quantisation: Quantisation) -> int | None:
    """Return the bits of a quantised weight, None without quantisation."""
    return _N_BITS.get(quantisation)


def write_checkpoint(
    run: SourceRun, folder: Path, dtype: WeightDtype, quantisation: Quantisation, dropped: Collection[int]
) -> int:
    """Write model, head, processor, labels, reader and fusion of a run into a folder; return the number of weights.

    dropped: positions of language layers that are left out. Raises StageError if a part of the run is damaged.
    """
    model = load_model(run.folder, torch.device("cpu"), dtype=dtype)
    head = load_head(run.folder, model.config.text_config.hidden_size, len(run.labels))
    if dropped:
        drop_layers(model, dropped)
    n_parameters = count(model.parameters())
    write_model(folder, model, head, load_processor(run.folder), run.labels)
    del model
    release_memory()
    if bits := n_bits(quantisation):
        _quantise(folder, bits)
    write_labels(folder, run.labels)
    _copy_companions(run, folder)
    # safetensors writes files that only their owner can read; a server often runs as another user.
    readable = (folder / FILE).stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(readable)
    return n_parameters


def _quantise(folder: Path, bits: int) -> None:
    """Replace the weights of a checkpoint by quantised ones."""
    # Written before the first forward pass: on some CPUs bitsandbytes repacks 4-bit weights in it.
    model = load_model(folder, default_device(), quantisation=bitsandbytes_config(bits), dtype="bfloat16")
    building = folder / ".quantised"
    model.save_pretrained(building)
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    for new in (*building.glob("model*.safetensors*"), building / "config.json"):
        new.replace(folder / new.name)
    shutil.rmtree(building)
    del model
    release_memory()


def _copy_companions(run: SourceRun, folder: Path) -> None:
    """Copy the settings of hints, and the fusion with its reader, after reading them: a damaged file is not copied."""
    if (run.folder / hints.SETTINGS_FILE).is_file():
        hints.read_settings(run.folder)
        shutil.copyfile(run.folder / hints.SETTINGS_FILE, folder / hints.SETTINGS_FILE)
    source, copy = run.folder / fusion.READER_FOLDER, folder / fusion.READER_FOLDER
    for kind, load_reader in _FUSIONS:
        if (run.folder / kind.FILE).is_file():
            kind.read(run.folder)
            labels = labels_of_model(source, run.labels)
            load_reader(source, labels).save(copy)
            replace(labels, source=FILE).write(copy)
            shutil.copyfile(run.folder / kind.FILE, folder / kind.FILE)


def check_disk(run: SourceRun, parent: Path, dtype: WeightDtype, quantisation: Quantisation) -> None:
    """Raise StageError if the folder of the export cannot hold the weights, twice if they are quantised."""
    parent.mkdir(parents=True, exist_ok=True)
    source = sum(path.stat().st_size for path in run.folder.glob("*.safetensors"))
    # A run's file holds at least two bytes a weight.
    needed = source * _DTYPE_BYTES[dtype] // 2 * (1 if quantisation == "none" else 2)
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise StageError(f"{parent}: {free / 1e9:.1f} GB are free, the export may need {needed / 1e9:.1f} GB")


def release_memory() -> None:
    """Return the memory of deleted models to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
