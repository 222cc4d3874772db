"""A cache of vision features in memory, within a byte budget."""

from collections import OrderedDict

import torch

from skincare.modeling.prompt_encoder import Grid

# The grid of an image and its (n_patches, feature width) features on the CPU.
Features = tuple[Grid, torch.Tensor]


class FeatureMemory:
    """The most recently used features, of at most `max_bytes` in all."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self.has_evicted = False
        self._features: OrderedDict[str, Features] = OrderedDict()

    def __contains__(self, image: str) -> bool:
        return image in self._features

    def get(self, image: str) -> Features | None:
        """Return the features of an image, which become the most recently used."""
        if image not in self._features:
            return None
        self._features.move_to_end(image)
        return self._features[image]

    def put(self, image: str, features: Features) -> None:
        """Add the features of an image; the least recently used ones make room."""
        self._remove(image)
        # A row of a batch's result is a view that would keep the whole batch in memory.
        tensor = features[1].clone() if features[1].untyped_storage().nbytes() > features[1].nbytes else features[1]
        self._features[image] = (features[0], tensor)
        self.n_bytes += tensor.nbytes
        while self.n_bytes > self.max_bytes:
            self._remove(next(iter(self._features)))
            self.has_evicted = True

    def _remove(self, image: str) -> None:
        if image in self._features:
            self.n_bytes -= self._features.pop(image)[1].nbytes
