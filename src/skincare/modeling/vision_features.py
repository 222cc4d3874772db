"""From dataset examples to what the model sees of their images: decoded once, passed through the frozen prefix once.

The output of the frozen vision prefix of an image is always the same, so it is kept: in a folder when one is given
and there is a frozen prefix, in memory else. A folder's entry is keyed by the image's bytes, the pixel limits, the
processor's class, the prefix's weights and its dtype; anything else in the folder is never read.
"""

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from skincare import images
from skincare.dataset.image_files import FolderImages, ImageFiles
from skincare.errors import StageError
from skincare.files import replacing
from skincare.modeling.batches import Grid, Pixels, PromptEncoder
from skincare.modeling.out_of_memory import Passes
from skincare.modeling.recogniser import Recogniser

logger = logging.getLogger(__name__)


class VisionFeatures:
    """Looks up, and computes where needed, the prefix states of images by their path in the dataset.

    Raises StageError naming the image that cannot be read or decoded.
    """

    def __init__(
        self, recogniser: Recogniser, encoder: PromptEncoder, files: ImageFiles | Path,
        cache_folder: Path | None = None,
    ) -> None:  # fmt: skip
        self.recogniser = recogniser
        self.encoder = encoder
        self.files = FolderImages(files) if isinstance(files, Path) else files
        # Without a frozen prefix the states are the patches: more to write than the image, and little work to cut.
        is_kept = cache_folder is not None and recogniser.n_prefix_blocks >= 0
        self.cache_folder = cache_folder / prefix_key(recogniser, encoder) if cache_folder and is_kept else None
        self._kept: dict[str, tuple[Grid, torch.Tensor]] = {}
        # As many as are asked for together, until memory runs out.
        self._passes = Passes(sys.maxsize, "the frozen vision blocks", "allow fewer visual tokens (--max-tokens)")

    def fill(self, images: Sequence[str], batch_size: int = 16) -> None:
        """Compute the states of all images that are not kept yet, with a progress bar."""
        missing = [image for image in dict.fromkeys(images) if not self._recall(image)]
        if missing and self.cache_folder:
            self._announce(len(missing), self.cache_folder)
        with tqdm(total=len(missing), unit="image", desc="images", disable=None) as bar:
            for start in range(0, len(missing), batch_size):
                self._compute(missing[start : start + batch_size])
                bar.update(len(missing[start : start + batch_size]))

    def _announce(self, n_images: int, folder: Path) -> None:
        """Say how much will be written; raises StageError where that does not fit on the disk."""
        visual, processor = self.recogniser.model.model.visual, self.encoder.processor.image_processor
        n_patches = processor.size["longest_edge"] // processor.patch_size**2
        n_bytes = n_images * n_patches * visual.config.embed_dim * visual.get_dtype().itemsize
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        logger.info("%d images pass the frozen prefix once: at most %.1f MB in %s", n_images, n_bytes / 1e6, folder)
        if n_bytes > free:
            raise StageError(f"{folder}: only {free / 1e6:.1f} MB are free; go without by --no-cache-images")

    def get(self, images: Sequence[str]) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return grids and (n_patches, width) states, on the model's device, in the order asked for."""
        self._compute([image for image in dict.fromkeys(images) if not self._recall(image)])
        found = [self._kept[image] for image in images]
        return [grid for grid, _ in found], [states.to(self.recogniser.device) for _, states in found]

    def sha256(self, image: str) -> str:
        """Return the hash of an image's bytes."""
        return hashlib.sha256(self.files.bytes_of(image)).hexdigest()

    def views(
        self, images: Sequence[str], changes: Sequence[Callable[[Image], Image]]
    ) -> tuple[list[Grid], list[torch.Tensor]]:
        """Return what `get` does for images that are changed after decoding; nothing of it is kept."""
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(self._read_pixels, images, changes))
        return [one.grid for one in pixels], self.recogniser.vision_features(pixels)

    def _compute(self, images: list[str]) -> None:
        if not images:
            return
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(self._read_pixels, images))
        parts = self._passes.over(pixels, self.recogniser.vision_features)
        states = [states for part in parts for states in part]
        for image, image_pixels, vision_features in zip(images, pixels, states, strict=True):
            self._keep(image, image_pixels.grid, vision_features.cpu())

    def _read_pixels(self, image: str, change: Callable[[Image], Image] = lambda image: image) -> Pixels:
        try:
            return self.encoder.pixels(change(images.decode(self.files.bytes_of(image))))
        except (images.BrokenImageError, ValueError) as error:
            raise StageError(f"{image}: {error}\nRemove it with `python src/clean.py`.") from error

    def _keep(self, image: str, grid: Grid, states: torch.Tensor) -> None:
        self._kept[image] = (grid, states)
        if self.cache_folder:
            with replacing(self._entry(image)) as temporary:
                save_file({"states": states.contiguous(), "grid": torch.tensor(grid)}, temporary)

    def _recall(self, image: str) -> bool:
        """Say whether an image's states are at hand, fetching them from the folder."""
        if image not in self._kept and self.cache_folder and self._entry(image).is_file():
            try:
                entry = load_file(self._entry(image))
            except SafetensorError:
                return False  # torn by a crash of the machine: computed and written again
            rows: Any = tuple(entry["grid"].tolist())
            self._kept[image] = (rows, entry["states"])
        return image in self._kept

    def _entry(self, image: str) -> Path:
        assert self.cache_folder is not None
        return self.cache_folder / f"{self.sha256(image)}.safetensors"


def prefix_key(recogniser: Recogniser, encoder: PromptEncoder) -> str:
    """Return 16 hex digits over all that decides an image's states but the image: weights, dtype, processor."""
    visual = recogniser.model.model.visual
    processor = encoder.processor.image_processor
    digest = hashlib.sha256(f"{type(processor).__name__} {processor.to_json_string()}".encode())
    blocks = visual.blocks[: max(recogniser.n_prefix_blocks, 0)]
    for module in (visual.patch_embed, *blocks):
        for tensor in module.state_dict().values():
            digest.update(str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
