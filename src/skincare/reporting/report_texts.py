"""Sentences of the report that depend on the data: the notice about sample data, the limitations, explanations."""

from typing import Final, NamedTuple

from skincare.reporting.report_data import ReportData

# The second line of a prompt that has a hint of this kind.
HINT_SOURCES: Final = {
    "text": "the text that OCR read on the pack",
    "metadata": "metadata of the product from the shop's page",
}
STATUS_NOTE: Final = (
    "exact and alias: the output names one category. ambiguous: it names several; negated: it excludes one; echo: it "
    "repeats the prompt. refusal, offlist, empty and truncated: it names none."
)
SALIENCY_METHODS: Final = {
    "gradient": "gradient times activation of the visual tokens",
    "lens": "language head applied to the visual tokens' last hidden states",
    "early": "attention of the early third of the language layers",
    "middle": "attention of the middle third of the language layers",
    "late": "attention of the late third of the language layers",
    "rollout": "attention rollout through all language layers",
    "shuffled": "control: gradient times activation, shuffled",
    "area": "control: share of the image's area inside the box",
}
ATTENTION_MAPS: Final = {
    "gradient": "Saliency: gradient",
    "lens": "Saliency: language head",
    "early": "Early layers",
    "middle": "Middle layers",
    "late": "Late layers",
    "rollout": "Rollout",
}
ATTENTION_NOTES: Final = {
    "what": (
        "Attention weights on the visual tokens from the position that generates the deciding token (with a "
        "classification head, from the last token of the prompt), mean over the heads and over a third of the "
        "language layers. Rollout follows the weights through all layers, where each keeps half of its input."
    ),
    "columns": (
        "Saliency enters by its magnitude. IoU: of the fifth of the visual tokens with the largest values. Another "
        "product: the same with the saliency of an image of another product, which holds what all images share, such "
        "as a preference for the centre; the difference is to this control. Rank correlation: Spearman's, over all "
        "visual tokens. On the image: the share of the attention that the visual tokens receive; the rest goes to the "
        "text."
    ),
    "panels": "Above, saliency; below, attention: early and middle layers, late layers and rollout.",
    "limits": (
        "Attention is not attribution: it shows from which tokens a layer reads, not whether what it reads changes the "
        "prediction, nor for which category it speaks. What earlier layers have copied into the tokens of the text is "
        "read there, and some visual tokens attract attention whatever they show."
    ),
}


class Notice(NamedTuple):
    """What a reader must know before the numbers: a claim and its consequence."""

    claim: str
    detail: str


def notice(data: ReportData) -> Notice | None:
    """Return the notice about a stand-in model or rendered images; None for a real model on real images."""
    if data.is_embedded_model:
        claim = (
            "This run used the embedded tiny model on rendered products."
            if data.is_sample_shop
            else "This run used the embedded tiny model, which was trained on rendered products, on other images."
        )
        # Other stages than these two may have run; without training the report holds nothing of most of them.
        shown = "every stage works" if "finetune" in data.stages else "prediction and evaluation work"
        return Notice(
            claim,
            f"It shows that {shown}. It says nothing about how well Qwen2-VL-2B recognises real products, and "
            "its numbers cannot be compared with the published ones.",
        )
    if data.is_sample_shop:
        return Notice("The images are rendered products of the sample shop.", "They say nothing about real products.")
    return None


def limitations(data: ReportData) -> list[str]:
    """Return the limitations of the evaluation, one sentence or two each."""
    found = [
        f"{data.last.n} test images of {data.last.n_products} products are few: read the intervals, not the decimals. "
        "For a category of fewer than ten images the numbers are weak evidence.",
        "The images and categories come from one source, and other sources sort products differently."
        if "import_images" in data.stages
        else "The images and categories come from one shop, and other shops sort products differently.",
        "Train and test can contain products of one brand; accuracy may be lower for brands that are not in train.",
    ]
    if data.is_embedded_model:
        n = (data.stages.get("finetune") or data.stages["zero_shot"])["results"]["n_parameters"]
        found.append(f"The model has {n:,} parameters and was made for rendered packs: no result carries over.")
    return found
