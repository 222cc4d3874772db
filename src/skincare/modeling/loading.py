"""Loading a model of a supported family and its processor, the same way for every stage.

A source is a hub name (`Qwen/Qwen2-VL-2B`, `Qwen/Qwen2-VL-2B-Instruct`) or a local folder. `HF_TOKEN` is taken from the
environment by huggingface_hub and is never read or logged here.
"""

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from requests import RequestException
from requests import head as http_head
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

from skincare.errors import MissingInputError, StageError
from skincare.modeling.families.registry import FAMILIES
from skincare.modeling.out_of_memory import explained
from skincare.modeling.settings import Dtype, PixelLimits
from skincare.prompts import CHAT_TEMPLATE_FILE

logger = logging.getLogger(__name__)

# Files of a checkpoint that are needed; .bin and .pt files can run code when they are unpickled.
_CHECKPOINT_FILES: Final = ["*.json", "*.safetensors", "*.txt", "*.jinja"]

# More than ten times those of any published model.
_MAX_LAYERS: Final = 2000
# What transformers raises for files that are damaged, or hold values that no model of the family has.
_UNUSABLE: Final = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, ImportError,
    AssertionError, MemoryError, StrictDataclassError, SafetensorError,
)  # fmt: skip


def load_processor(source: str | Path, limits: PixelLimits | None = None) -> Any:
    """Return the checkpoint's processor with our chat template; without limits, with those that it was saved with.

    Raises MissingInputError if the source is not available, StageError if it is no processor of a supported family.
    """
    folder = _folder_of_family(source)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except _UNUSABLE as error:
        raise StageError(f"{source}: its processor cannot be loaded ({_in_one_line(error)})") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "image_token_id"):
        raise StageError(f"{source}: {type(processor).__name__} is not a processor of {_supported()}")
    processor.chat_template = CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
    if limits is not None:
        images = processor.image_processor
        images.size = limits.as_size((images.patch_size * images.merge_size) ** 2)
    return processor


def load_config(source: str | Path, attention: str = "sdpa", *, accepts_quantised: bool = False) -> Any:
    """Return the checkpoint's configuration, without its weights; raises as `load_model` does.

    Raises StageError also for an `attention` that is not available and for a quantised checkpoint, which cannot be
    trained; inference accepts one that bitsandbytes made.
    """
    folder = _folder_of_family(source)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except _UNUSABLE as error:
        raise StageError(f"{source}: its configuration cannot be loaded ({_in_one_line(error)})") from error
    quantised = getattr(config, "quantization_config", None)
    method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
    if quantised and not (accepts_quantised and method == "bitsandbytes"):
        raise StageError(
            f"{source}: its weights are quantised already; name the checkpoint that it was made from (recipes ending "
            "in -qlora4 or -qlora8 quantise that themselves)"
        )
    if attention == "flash_attention_2":
        _require_flash_attention(config)
    return config


def _require_flash_attention(config: Any) -> None:
    otherwise = "or leave --attention out: sdpa needs nothing"
    if importlib.util.find_spec("flash_attn") is None:
        raise StageError(
            "--attention flash_attention_2 needs flash-attn, which is not installed: `pip install flash-attn "
            f"--no-build-isolation` (it wants an NVIDIA GPU and the CUDA toolkit of this torch), {otherwise}"
        )
    if not torch.cuda.is_available():
        raise StageError(
            f"--attention flash_attention_2 needs an NVIDIA GPU, which torch does not see; use one, {otherwise}"
        )
    if config.dtype == torch.float32:
        raise StageError(f"flash_attention_2 cannot compute in float32; take a bfloat16 checkpoint, {otherwise}")


def load_model(
    source: str | Path, device: torch.device, attention: str = "sdpa", quantisation: Any = None, *,
    dtype: Dtype = "auto", accepts_quantised: bool = False,
) -> Any:  # fmt: skip
    """Return the checkpoint's model, such as a Qwen2VLForConditionalGeneration, in evaluation mode.

    `dtype` auto is the one it was saved in, but bfloat16 for float16, which overflows under autocast.
    Raises MissingInputError if the source is not available, StageError if its weights do not fit.
    """
    config, folder = load_config(source, attention, accepts_quantised=accepts_quantised), _local_folder(source)
    is_quantised = bool(quantisation) or hasattr(config, "quantization_config")
    is_half = _is_half(config, folder)
    if is_half and dtype == "auto":
        logger.warning("%s is saved in float16; loaded as bfloat16, which has the range that training needs", source)
    disable_progress_bar()  # ours is the one bar of a stage
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype="bfloat16" if is_half and dtype == "auto" else dtype,
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            # An explicit None would ignore the configuration of a checkpoint that is quantised.
            **({"quantization_config": quantisation} if quantisation else {}),
        )
    except _UNUSABLE as error:
        raise StageError(f"{source}: its model cannot be loaded ({_in_one_line(error)})") from error
    model, loading = loaded
    if loading["missing_keys"]:
        # transformers would fill them with random numbers and only warn.
        raise StageError(f"{source}: the checkpoint lacks {len(loading['missing_keys'])} of the model's tensors")
    # A quantised model is where it was loaded to.
    with explained("loading the weights", "this device does not hold the model; take another, or a -qlora4 recipe"):
        return (model if is_quantised else model.to(device)).eval()


def _is_half(config: Any, folder: Path) -> bool:
    """Return whether a checkpoint is in float16, by its configuration or else its first tensor."""
    if config.dtype is not None:
        return bool(config.dtype == torch.float16)
    file = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if file is None:
        return False
    try:
        with safe_open(file, "pt") as reader:
            return any(reader.get_slice(name).get_dtype() == "F16" for name in list(reader.keys())[:1])
    except (OSError, SafetensorError):
        return False  # loading reports the error


def memory_capacity(device: torch.device) -> int:
    """Return the bytes of memory that a run on `device` can have."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def default_device() -> torch.device:
    """Return this process's CUDA device, or the CPU."""
    place = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", place) if torch.cuda.is_available() else torch.device("cpu")


def weight_hash(model: torch.nn.Module) -> str:
    """Return 16 hex digits over names, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def checkpoint_hashes(source: str | Path) -> dict[str, str]:
    """Return 16 hex digits over all weights of a checkpoint, independent of the shards, and over its configuration.

    Raises as `load_model` does, StageError for files that are not safetensors.
    """
    folder = _local_folder(source)
    states = [(file.name, file.stat()) for file in sorted(folder.glob("*.safetensors"))]
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("config.json is no object")
        weights = _weights_in_files(folder, tuple((name, one.st_size, one.st_mtime_ns) for name, one in states))
        # The version that saved it does not affect the outputs.
        settings = {key: value for key, value in config.items() if key != "transformers_version"}
        plain = json.dumps(settings, sort_keys=True)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise StageError(f"{source}: its weights cannot be read ({_in_one_line(error)})") from error
    return {"weights": weights, "configuration": hashlib.sha256(plain.encode()).hexdigest()[:16]}


@lru_cache(maxsize=8)
def _weights_in_files(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """Return the hash of the tensors in files, given with size and time; cached, since it takes seconds."""
    digest = hashlib.sha256()
    with ExitStack() as opened:
        readers: list[Any] = [opened.enter_context(safe_open(folder / name, "pt")) for name, _, _ in files]
        place_of = {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118  no mapping
        for name in sorted(place_of):
            tensor = place_of[name].get_tensor(name)
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def revision(source: str | Path) -> str:
    """Return the commit of a downloaded model of the hub; empty for a folder."""
    folder = _local_folder(source)
    return folder.name if folder.parent.name == "snapshots" else ""


def _local_folder(source: str | Path) -> Path:
    """Return the folder of a checkpoint; downloads it from the hub if needed."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MissingInputError("config.json of the model", folder, "Is this folder a Hugging Face checkpoint?")
        return folder
    try:
        return Path(snapshot_download(str(source), allow_patterns=_CHECKPOINT_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return _download(str(source))
    except HFValidationError as error:
        raise _not_found(source, "no folder here, and no name that a model hub could have") from error


def _folder_of_family(source: str | Path) -> Path:
    """Return the folder of a checkpoint, whose architecture is one that is supported."""
    folder = _local_folder(source)
    _check_family(source, folder / "config.json")
    return folder


def _check_family(source: str | Path, config_file: Path) -> None:
    """Raise StageError if a config.json names an architecture that is not supported, known to transformers or not."""
    try:
        values = json.loads(config_file.read_text(encoding="utf-8"))
        model_type = values["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StageError(f"{source}: its configuration cannot be loaded (no model_type in {config_file})") from error
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise StageError(f"{source}: a model of type {model_type}; supported are {_supported()}")
    for part in (values, values.get("text_config"), values.get("vision_config")):
        for name in ("num_hidden_layers", "depth"):
            number = part.get(name) if isinstance(part, dict) else None
            # transformers would list them one by one until the memory is full.
            if isinstance(number, int | float) and number > _MAX_LAYERS:
                raise StageError(f"{source}: its configuration cannot be loaded ({name} is {number})")


def _download(name: str) -> Path:
    # huggingface_hub retries an unreachable host for minutes, file by file; this request fails quickly.
    try:
        http_head(constants.ENDPOINT, timeout=10)
    except RequestException as error:
        raise _not_found(name, f"{constants.ENDPOINT} cannot be reached from here") from error
    logger.info("fetching %s from %s", name, constants.ENDPOINT)
    try:
        # Before gigabytes of weights that could not be used.
        _check_family(name, Path(hf_hub_download(name, "config.json")))
        return Path(snapshot_download(name, allow_patterns=_CHECKPOINT_FILES))
    except (HfHubHTTPError, OSError) as error:
        raise _not_found(name, _in_one_line(error)) from error


def _not_found(source: str | Path, why: str) -> MissingInputError:
    return MissingInputError(
        "model",
        f"{source} ({why})",
        "Name a model of the Hugging Face hub (set HF_TOKEN if it is gated) or a local folder with --model, "
        "or run `make sample`, which uses the embedded models/tiny-qwen2-vl and needs no download.",
    )


def _supported() -> str:
    return ", ".join(f"{one.label} ({name})" for name, one in FAMILIES.items())


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
