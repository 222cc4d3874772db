"""The names of the default labels, for scripts written before `labels.toml`; the project itself reads `labels_of`.

It goes with the next release: `skincare.labels.skincare_labels().names` is the same tuple.
"""

from typing import Final

from skincare.labels import skincare_labels

CATEGORIES: Final = skincare_labels().names
