"""The supported model families, by the `model_type` of a checkpoint's configuration."""

from typing import Any, Final

from skincare.modeling.families.base import Family, PublishedModel
from skincare.modeling.families.qwen2_5_vl import Qwen25VL
from skincare.modeling.families.qwen2_vl import Qwen2VL
from skincare.modeling.families.qwen3_vl import Qwen3VL

FAMILIES: Final[dict[str, Family]] = {one.model_type: one for one in (Qwen2VL(), Qwen25VL(), Qwen3VL())}


def family_of(config: Any) -> Family:
    """Return the family of a model's configuration or of its vision configuration."""
    return FAMILIES[config.model_type.removesuffix("_vision")]


def published_model(name: str) -> tuple[Family, PublishedModel] | None:
    """Return a published model by its name on the hub, with its family; None for any other name."""
    return next(((family, one) for family in FAMILIES.values() for one in family.models if name in one.names), None)
