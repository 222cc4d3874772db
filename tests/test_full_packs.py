"""Packs with full labels print what their names state, and the first target's packs stay as they are."""

import copy
import hashlib
from dataclasses import replace

import numpy as np
import pytest

from skincare.errors import StageError
from skincare.labels import skincare_labels
from skincare.modeling.prompt_encoder import PromptEncoder
from skincare.paths import Layout
from skincare.product.facts import product_facts
from skincare.product.schema import Product
from skincare.product.sizes import parse_size
from skincare.product.stated_facts import read_stated_facts
from skincare.prompts import labels_for
from skincare.sample import drawing, full_packs, tiny
from skincare.sample.drawing import Packaging, View
from skincare.sample.full_labels import FullPrint
from skincare.sample.products import sample_products
from skincare.sample.shop import stock
from skincare.tables import CatalogueRow

PLAIN = sample_products(seed=0)
FULL = full_packs.with_full_labels(PLAIN)
SIZES = sorted({one.full_print.size for one in FULL})


def facts_of(product):
    row = CatalogueRow(product.name, "https://a.example/1.html", product.category, "[]", "")
    return product_facts(product.category, row).product


@pytest.mark.parametrize("product", FULL[::9], ids=lambda one: one.name)
def test_packs_print_the_facts_of_their_names(product):
    printed, truth = product.full_print, facts_of(product)
    assert str(parse_size(printed.size)) == truth.size
    assert {"": None, "DAY CARE": "morning", "NIGHT CARE": "night", "DAY & NIGHT": "morning and night"}[
        printed.use_time
    ] == truth.forNightOrMorning
    assert printed.line
    assert product.name.startswith(f"{printed.brand} {printed.line} ")


def test_only_print_and_caps_differ_from_the_first_sample():
    for plain, full in zip(PLAIN, FULL, strict=True):
        restored = replace(
            full, full_print=None, packaging=replace(full.packaging, cap_colour=plain.packaging.cap_colour)
        )
        assert restored == plain


def test_each_size_has_one_cap_and_each_cap_one_frequent_size():
    assert {full_packs.cap_colour(size) for size in SIZES} == set(drawing.CAP_COLOURS)
    frequent = [full_packs.cap_colour(f"{n}ml") for n in (30, 50, 75, 100, 200)]
    assert len(set(frequent)) == 5


def test_the_shop_prints_full_labels_only_for_the_product_sample(tmp_path):
    layout = Layout(tmp_path)
    assert stock(layout, 0) == PLAIN
    files = [layout.catalogue.read_bytes(), layout.shop_truth.read_bytes()]
    assert stock(layout, 0, has_full_labels=True) == FULL
    assert [layout.catalogue.read_bytes(), layout.shop_truth.read_bytes()] == files


def test_the_shop_states_what_the_packs_do_not_print(tmp_path):
    layout = Layout(tmp_path)
    stock(layout, 0)
    assert not layout.stated_facts.exists(), "only the product sample states absent fields"
    stock(layout, 0, has_full_labels=True)
    stated = read_stated_facts(layout.stated_facts)
    assert list(stated) == [one.product_id for one in FULL]
    for product in FULL:
        assert all(one.value is None for one in stated[product.product_id])
        lacked = {one.field for one in stated[product.product_id]}
        assert ("forNightOrMorning" in lacked) == (facts_of(product).forNightOrMorning is None)
        assert lacked - {"forNightOrMorning"} == {"country", "details", "manufacturer", "origin"}


def test_the_user_s_table_of_facts_is_kept(tmp_path):
    layout = Layout(tmp_path)
    layout.stated_facts.parent.mkdir(parents=True)
    layout.stated_facts.write_text("product_id,field,value,source\n")
    with pytest.raises(StageError, match=r"stated_facts\.csv is not the sample shop's"):
        stock(layout, 0, has_full_labels=True)
    stock(layout, 0)


def test_the_drawings_of_the_first_sample_are_unchanged():
    """The digest is of the drawings from before packs had full labels."""
    digest = hashlib.sha256()
    for product in PLAIN[:4]:
        for image in product.images:
            digest.update(drawing.draw(product.packaging, image.view, 96, *product.printed).image.tobytes())
    assert digest.hexdigest()[:16] == "d40248bb1d29d266"


@pytest.mark.parametrize("container", drawing.CONTAINERS)
@pytest.mark.parametrize("label", drawing.LABELS)
def test_a_full_label_stays_on_the_pack_and_its_size_shows(container, label):
    packaging = Packaging(container, "white", "black", label, "drop")
    printed = FullPrint("Halden", "Calming Rose", "Booster Serum", "DAY CARE", "150ml")
    one, other = (drawing.draw(packaging, View(), 320, full=replace(printed, size=size)) for size in ("150ml", "250ml"))
    changed = np.abs(np.asarray(one.image).astype(int) - np.asarray(other.image)).max(axis=2) > 60
    assert changed.sum() > 40
    assert not changed[np.asarray(one.mask) == 0].any()


def test_a_view_without_text_shows_no_print():
    packaging = Packaging("jar", "white", "black", "band", "drop")
    images = [
        drawing.draw(packaging, View(has_text=False), 200, full=FullPrint(size=size)).image.tobytes()
        for size in ("50ml", "100ml")
    ]
    assert images[0] == images[1]


def test_structured_answers_are_short_for_the_extended_model(tiny_model, tiny_encoder):
    model, processor = copy.deepcopy(tiny_model), copy.deepcopy(tiny_encoder.processor)
    before = model.get_input_embeddings().weight.detach().clone()
    n_added = tiny.add_structure_tokens(model, processor, seed=1)
    after = model.get_input_embeddings().weight.detach()
    assert n_added == len(after) - len(before) == 12
    assert (after[: len(before)] == before).all()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    encoder = PromptEncoder(processor, labels_for("product", skincare_labels()))
    text = Product(category="Bath Salts", size="100 ml", forNightOrMorning="night").to_json()
    tokens = encoder.answer_tokens(text)
    assert len(tokens) < 45
    assert encoder.decode(tokens) == text
    assert len(tiny_encoder.answer_tokens(text)) > 2 * len(tokens)
