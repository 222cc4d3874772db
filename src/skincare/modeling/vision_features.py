"""Vision features: each image is decoded and passed through the frozen vision blocks once, then cached.

Features are cached in memory, up to a byte budget, and on disk if a folder is given and the patch embedding is frozen.
A file on disk is keyed by the image's bytes, the model family, the processor with its pixel limits, the frozen weights
and their dtype. A feature tensor holds all that its family needs (`skincare.modeling.vision_tower`).
"""

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from skincare import images
from skincare.dataset.image_files import FolderImages, ImageFiles
from skincare.errors import StageError
from skincare.files import replacing
from skincare.modeling import vision_tower
from skincare.modeling.cached_vlm import CachedVLM
from skincare.modeling.families.registry import family_of
from skincare.modeling.feature_memory import FeatureMemory, Features
from skincare.modeling.out_of_memory import Passes
from skincare.modeling.prompt_encoder import Grid, Patches, PromptEncoder
from skincare.modeling.staging import pinned, to_device

logger = logging.getLogger(__name__)

# Features of about 1,500 images of Qwen2-VL-2B with 128 visual tokens in bfloat16.
MEMORY_BUDGET_BYTES: Final = 2 * 2**30


@dataclass(frozen=True)
class LoadedImages:
    """Images in the memory of the host: cached features by path, and the patches of the other paths, then of images.

    Without `images`, the patches are those of transformed images, whose features are not cached.
    """

    images: tuple[str | Image, ...]
    found: Mapping[str, Features]
    patches: list[Patches]

    @property
    def paths(self) -> list[str]:
        """Return the images that are given by path, each once."""
        return list(dict.fromkeys(one for one in self.images if isinstance(one, str)))

    @property
    def grids(self) -> list[Grid]:
        """Return the grid of each image, in order."""
        if not self.images:
            return [one.grid for one in self.patches]
        missing = [path for path in self.paths if path not in self.found]
        rows = [(one.grid, one.patches) for one in self.patches]
        of_paths = dict(zip(missing, rows, strict=False))
        return [grid for grid, _ in self.in_order(of_paths, rows[len(missing) :])]

    def in_order(self, of_paths: Mapping[str, Features], of_images: Sequence[Features]) -> list[Features]:
        """Return grids and features in the order of the images, given those of the missing paths and of the rest."""
        found, rest = {**self.found, **of_paths}, iter(of_images)
        return [found[one] if isinstance(one, str) else next(rest) for one in self.images]


class VisionFeatures:
    """Returns the vision features of images, given by their path in the dataset or decoded; computes what is missing.

    Raises StageError naming the image that cannot be read or decoded.
    """

    def __init__(
        self, network: CachedVLM, encoder: PromptEncoder, files: ImageFiles | Path,
        cache_folder: Path | None = None, max_bytes: int = MEMORY_BUDGET_BYTES,
    ) -> None:  # fmt: skip
        self._network = network
        self._encoder = encoder
        self.files = FolderImages(files) if isinstance(files, Path) else files
        # If the patch embedding is trained, the features are the patches: larger than the image and cheap to compute.
        is_cached = cache_folder is not None and network.n_cached_blocks >= 0
        self.cache_folder = cache_folder / features_key(network, encoder) if cache_folder and is_cached else None
        self._in_memory = FeatureMemory(max_bytes)
        self._readers = ThreadPoolExecutor(thread_name_prefix="images")
        self._sha256: dict[str, str] = {}
        self._n_tokens: dict[str, int] = {}
        # All images of a call in one pass, until memory runs out.
        self._passes = Passes(sys.maxsize, "the frozen vision blocks", "allow fewer visual tokens (--max-tokens)")

    def fill(self, images: Sequence[str], batch_size: int = 16) -> None:
        """Compute the features of all images that are not cached yet, with a progress bar.

        Without a cache folder this stops when the memory budget is used up.
        """
        missing = [image for image in dict.fromkeys(images) if not self._is_cached(image)]
        if missing and self.cache_folder:
            self._check_disk(len(missing), self.cache_folder)
        with tqdm(total=len(missing), unit="image", desc="vision features", disable=None) as bar:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                self._store(dict(zip(batch, self._compute(self._read(batch)), strict=True)))
                bar.update(len(batch))
                if not self.cache_folder and self._in_memory.has_evicted:
                    logger.warning("not all vision features fit into memory; the others are computed when needed")
                    break

    def get(self, images: Sequence[str | Image]) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return the grids and the (n_patches, feature width) features of images, on the model's device, in order.

        Features of decoded images are not cached.
        """
        loaded = self.load(images)
        return loaded.grids, self.compute(loaded)

    def transformed(
        self, images: Sequence[str], transforms: Sequence[Callable[[Image], Image]]
    ) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return what `get` returns, for images transformed after decoding; nothing is cached."""
        loaded = self.load(images, transforms)
        return loaded.grids, self.compute(loaded)

    def load(
        self, images: Sequence[str | Image], transforms: Sequence[Callable[[Image], Image]] = ()
    ) -> LoadedImages:  # fmt: skip
        """Read what `compute` needs: cached features, or else the patches of images; all patches with transforms.

        Makes no pass of the model, so that a thread may load images between two calls of `compute`.
        """
        if transforms:
            patches = list(self._readers.map(self._read_patches, images, transforms))
            tensors = pinned([one.patches for one in patches], self._network.device)
            return LoadedImages(
                (), {}, [Patches(tensor, one.grid) for tensor, one in zip(tensors, patches, strict=True)]
            )
        paths = list(dict.fromkeys(image for image in images if isinstance(image, str)))
        found = {path: features for path in paths if (features := self._recall(path)) is not None}
        tensors = pinned([tensor for _, tensor in found.values()], self._network.device)
        found = {path: (found[path][0], tensor) for path, tensor in zip(found, tensors, strict=True)}
        missing = [path for path in paths if path not in found]
        decoded = [image for image in images if not isinstance(image, str)]
        return LoadedImages(tuple(images), found, self._read([*missing, *decoded]))

    def compute(self, loaded: LoadedImages) -> list[torch.Tensor]:
        """Return the features of loaded images on the model's device, in order; those of paths are cached."""
        if not loaded.images:
            return self._network.vision_features(loaded.patches)
        computed = self._compute(loaded.patches)
        missing = [path for path in loaded.paths if path not in loaded.found]
        of_paths = dict(zip(missing, computed, strict=False))
        self._store(of_paths)
        rows = loaded.in_order(of_paths, computed[len(missing) :])
        return to_device([tensor for _, tensor in rows], self._network.device)

    def sha256(self, image: str) -> str:
        """Return the hash of an image's bytes."""
        if image not in self._sha256:
            self._sha256[image] = hashlib.sha256(self.files.bytes_of(image)).hexdigest()
        return self._sha256[image]

    def _store(self, found: Mapping[str, Features]) -> None:
        """Cache features in memory and on disk."""
        for image, features in found.items():
            self._in_memory.put(image, features)
            if self.cache_folder:
                grid, tensor = features
                with replacing(self._file(image)) as temporary:
                    save_file({"states": tensor.contiguous(), "grid": torch.tensor(grid)}, temporary)

    def _read(self, images: Sequence[str | Image]) -> list[Patches]:
        return list(self._readers.map(self._read_patches, images))

    def _compute(self, patches: Sequence[Patches]) -> list[Features]:
        """Return features on the CPU."""
        parts = self._passes.over(patches, self._network.vision_features)
        features = [one.cpu() for part in parts for one in part]
        return [(one.grid, tensor) for one, tensor in zip(patches, features, strict=True)]

    def n_visual_tokens(self, image: str) -> int:
        """Return the number of visual tokens of an image in the dataset, from its header; 0 for a broken one."""
        if image not in self._n_tokens:
            try:
                size = images.displayed_size(self.files.bytes_of(image))
                self._n_tokens[image] = self._encoder.n_tokens_of_size(size)
            except (images.BrokenImageError, ValueError):
                self._n_tokens[image] = 0
        return self._n_tokens[image]

    def _read_patches(
        self, image: str | Image, transform: Callable[[Image], Image] = lambda image: image
    ) -> Patches:  # fmt: skip
        try:
            decoded = images.decode(self.files.bytes_of(image)) if isinstance(image, str) else image
            return self._encoder.patches(transform(decoded))
        except (images.BrokenImageError, ValueError) as error:
            raise StageError(f"{image}: {error}\nRemove it with `python src/clean.py`.") from error

    def _recall(self, image: str) -> Features | None:
        """Return cached features from memory or disk."""
        features = self._in_memory.get(image)
        if features is None and self.cache_folder and self._file(image).is_file():
            try:
                entry = load_file(self._file(image))
            except (SafetensorError, OSError):
                return None  # torn by a crash, or deleted by another stage: computed and written again
            grid: Any = tuple(entry["grid"].tolist())
            features = (grid, entry["states"])
            self._in_memory.put(image, features)
        return features

    def _is_cached(self, image: str) -> bool:
        """Return whether `_recall` finds the features, without reading a file's data."""
        if image in self._in_memory:
            return True
        if not self.cache_folder or not self._file(image).is_file():
            return False
        try:
            with safe_open(self._file(image), "pt"):
                return True
        except SafetensorError:
            return False

    def _file(self, image: str) -> Path:
        assert self.cache_folder is not None
        return self.cache_folder / f"{self.sha256(image)}.safetensors"

    def _check_disk(self, n_images: int, folder: Path) -> None:
        """Log the size of the files to be written; raise StageError if they do not fit on the disk."""
        visual, processor = self._network.model.model.visual, self._encoder.processor.image_processor
        n_patches = processor.size["longest_edge"] // processor.patch_size**2
        width = vision_tower.feature_width(visual, self._network.n_cached_blocks)
        n_bytes = n_images * n_patches * width * vision_tower.feature_dtype(visual).itemsize
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        logger.info(
            "computing the vision features of %d images: at most %.1f MB in %s", n_images, n_bytes / 1e6, folder
        )
        if n_bytes > free:
            raise StageError(f"{folder}: only {free / 1e6:.1f} MB are free; use --no-cache-images")


def features_key(network: CachedVLM, encoder: PromptEncoder) -> str:
    """Return 16 hex digits over all that features depend on except the image: family, weights, dtype, processor."""
    visual = network.model.model.visual
    processor = encoder.processor.image_processor
    family, n_blocks = family_of(visual.config), max(network.n_cached_blocks, 0)
    digest = hashlib.sha256(f"{type(processor).__name__} {processor.to_json_string()}".encode())
    settings = [getattr(visual.config, name) for name in family.vision_settings]
    digest.update(f"{family.model_type} {settings}".encode())
    deepstack = [one for i, one in family.deepstack_mergers(visual).items() if i < n_blocks]
    for module in (visual.patch_embed, *family.position_modules(visual), *visual.blocks[:n_blocks], *deepstack):
        for tensor in module.state_dict().values():
            digest.update(str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
