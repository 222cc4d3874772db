"""benchmarks/pack_fields.py: marks are read strictly, and the right one of several values counts."""

import pytest
from benchmarks import pack_fields
from benchmarks.pack_fields import Mark, read_marks, scored_product

from skincare.errors import StageError
from skincare.evaluation.product_metrics import outcome
from skincare.product.schema import Product

HEADER = "sha256,part,brand,manufacturer,name,origin,size,forNightOrMorning\n"


def test_the_marks_of_the_repository():
    marks = read_marks(pack_fields.Config.__dataclass_fields__["marks"].default)
    assert [sum(one.part == part for one in marks.values()) for part in pack_fields.PARTS] == [139, 52]
    assert all(len(digest) == 64 for digest in marks)
    for one in marks.values():
        for field, values in one.values.items():
            for value in values:
                Product.model_validate({field: value})


def test_cells_are_values_absent_or_not_scored(tmp_path):
    path = tmp_path / "marks.csv"
    path.write_text(HEADER + "a,held_out,Acme|Acme Paris,-,,-,50 ml,night\n", encoding="utf-8")
    assert read_marks(path)["a"] == Mark(
        "held_out",
        {"brand": ("Acme", "Acme Paris"), "manufacturer": (), "origin": (), "size": ("50 ml",),
         "forNightOrMorning": ("night",)},
    )  # fmt: skip


@pytest.mark.parametrize("text", ["sha256,part\n", HEADER + "a,other,,,,,,\n", HEADER + "a,held_out,,,,,,\n" * 2])
def test_malformed_marks_raise(tmp_path, text):
    (tmp_path / "marks.csv").write_text(text, encoding="utf-8")
    with pytest.raises(StageError):
        read_marks(tmp_path / "marks.csv")


def test_outcomes_of_a_photo():
    mark = Mark("held_out", {"brand": ("Acme", "Acme Paris"), "name": ("Rose Toner",), "size": (), "origin": ()})
    scored = scored_product(
        "a", "p", "Toner", mark, Product(brand="ACME PARIS", name="Acme Rose Toner", size="50 ml", manufacturer="X")
    )
    found = {field: outcome(scored, field) for field in ("brand", "name", "size", "origin", "manufacturer", "category")}
    assert found == {
        "brand": "correct", "name": "correct", "size": "invented", "origin": None, "manufacturer": None,
        "category": "omitted",
    }  # fmt: skip
