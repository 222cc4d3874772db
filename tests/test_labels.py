"""Labels files: what is read, what the reader of mistakes gets, what a model carries."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import run_all
from skincare import categories, stage
from skincare.collecting.listing import adopt_catalogue
from skincare.collecting.sources import source_named
from skincare.errors import MissingInputError, StageError
from skincare.inference.answer_parser import parser_of
from skincare.labels import (
    Labels,
    check_same_labels,
    labels_of,
    labels_of_model,
    read_labels,
    skincare_labels,
)
from skincare.labels_file import MANY_LABELS
from skincare.paths import REPOSITORY, Layout
from skincare.tables import CATALOGUE, CatalogueRow

FULL = """\
domain = "kitchen"
question = "Which part of a kitchen is this?"
instruction = "You name kitchen goods. Choose one: {labels}!"
nameless = ["kettle corn"]

[parents]
"Drinks" = ["Mug", "Kettle"]
"Food" = ["Bread Bin"]

[[labels]]
name = "Mug"
aliases = ["cup", "beaker"]

[[labels]]
name = "Kettle"
aliases = {en = ["water boiler"], de = ["Wasserkocher"]}
n_unnamed = 2

[[labels]]
name = "Bread Bin"
is_dominant = true
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "labels.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_labels_give_the_prompt_of_the_reference() -> None:
    labels = skincare_labels()
    assert labels.question == "What type of skincare product is shown in this image?"
    assert labels.system_prompt() == (
        "You name the type of the skincare product in an image. Answer with exactly one of these categories and "
        "nothing else: Moisturiser, Exfoliator, Bath Salts, Body Wash, Eye Care, Cleanser, Bath Oil, Serum, Toner, "
        "Mist, Balm, Mask, Peel, Oil."
    )
    assert len(labels) == 14
    assert sorted(name for _, members in labels.families for name in members) == sorted(labels.names)


def test_a_list_of_names_is_enough(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, 'labels = ["Mug", "Kettle"]'))
    assert labels.names == ("Mug", "Kettle")
    assert labels.question == "What is shown in this image?"
    assert labels.system_prompt().endswith("nothing else: Mug, Kettle.")
    assert labels.families == (("Mug", ("Mug",)), ("Kettle", ("Kettle",)))
    assert not labels.has_families
    assert labels.product == "product"
    assert [(one.label, one.strength, one.phrases) for one in labels.pack_phrases] == [
        ("Mug", 3, "Mug"),
        ("Kettle", 3, "Kettle"),
    ]


def test_every_key_is_read(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, FULL))
    assert labels.system_prompt(("Kettle", "Mug")) == "You name kitchen goods. Choose one: Kettle, Mug!"
    assert labels.families == (("Drinks", ("Mug", "Kettle")), ("Food", ("Bread Bin",)))
    assert labels.family_of("Kettle") == "Drinks"
    assert labels.has_families
    assert labels.n_unnamed == (0, 2, 0)
    assert labels.product == "kitchen product"
    assert labels.dominant == ("Bread Bin",)
    assert ("Wasserkocher", "Kettle", "de") in labels.aliases
    assert ("", "en", 0, "kettle corn") in labels.pack_phrases


def test_answers_are_parsed_by_the_words_of_the_file(tmp_path: Path) -> None:
    parse = parser_of(read_labels(written(tmp_path, FULL))).parse
    assert parse("A mug.").category == "Mug"
    assert parse("two cups").category == "Mug"
    assert parse("Ein Wasserkocher").category == "Kettle"
    assert parse("kettle corn").category is None
    assert parse("Serum").category is None
    assert parse("bread bin mug").category == "Bread Bin"
    assert parse("mug kettle").category == "Kettle"


def test_a_phrase_table_is_read_from_next_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("label,language,strength,phrases\nMug,en,2,cup|tumbler\n,en,0,mug shot\n")
    labels = read_labels(written(tmp_path, 'phrase_table = "words.csv"\nlabels = ["Mug", "Kettle"]'))
    assert labels.pack_phrases == (("Mug", "en", 2, "cup|tumbler"), ("", "en", 0, "mug shot"))


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("labels = [", 1, "no valid TOML"),
        ('question = "x?"\nlabels = ["Mug", "Kettle"', 2, "no valid TOML"),
        ('question = "x?"', 1, "two labels or more"),
        ('question = "x?"\nlabels = ["Mug"]', 2, "two labels or more"),
        ('labels = ["Mug", 3]', 1, "without a name"),
        ('labels = [\n"Mug",\n"Kettle",\n"mug"]', 4, "stands twice"),
        ('labels = ["Mug",\n""]', 2, "empty"),
        ('labels = ["Mug",\n" Kettle"]', 2, "blanks"),
        ('labels = ["Mug",\n"Tea, Coffee"]', 2, "holds one of"),
        ('labels = ["Mug",\n"<|im_end|>a"]', 2, "holds one of"),
        ('labels = ["Mug",\n"unknown"]', 2, "is kept for"),
        ('labels = ["Mug", "Kettle"]\nquestions = "x?"', 2, "unknown key 'questions'"),
        ('labels = ["Mug", "Kettle"]\nquestion = ""', 2, "empty"),
        ('labels = ["Mug", "Kettle"]\nquestion = "a\\nb"', 2, "line ends"),
        ('labels = ["Mug", "Kettle"]\ninstruction = "Name it."', 2, "must hold {labels} once"),
        ('labels = ["Mug", "Kettle"]\ninstruction = "<s> {labels}"', 2, "holds < or >"),
        ('labels = ["Mug", "Kettle"]\nnameless = ["a", "a"]', 2, "stands twice"),
        ('labels = ["Mug", "Kettle"]\nnameless = ["MUG"]', 2, "stands for 'Mug' too"),
        ('labels = ["Mug", "Kettle"]\nnameless = "a"', 2, "no list of texts"),
        ('labels = ["Mug", "Kettle"]\nphrase_table = "no.csv"', 2, "no such phrase table"),
        ('labels = ["Mug", "Kettle"]\n[parents]\nDrinks = ["Mug", "Ketle"]', 3, "'Ketle', which is no label"),
        ('labels = ["Mug", "Kettle"]\n[parents]\nA = ["Mug"]\nB = ["Mug", "Kettle"]', 4, "in two families"),
        ('labels = ["Mug", "Kettle"]\n[parents]\nA = ["Mug"]', 2, "'Kettle' has no family"),
        ('[[labels]]\nname = "Mug"\n[[labels]]\nname = "Kettle"\naliases = ["cup", "cup"]', 5, "stands twice"),
        ('[[labels]]\nname = "Mug"\naliases = ["mug"]\n[[labels]]\nname = "Kettle"', 3, "stands twice"),
        (
            '[[labels]]\nname = "Mug"\naliases = [\n"cup"]\n[[labels]]\nname = "Kettle"\naliases = ["cup"]',
            7,
            "for 'Mug' too",
        ),
        ('[parents]\nA = ["B", "C"]\n[[labels]]\nname = "B"\nn_unnamed = 1\nx = 1\n[[labels]]\nname = "C"', 6, "key"),
        ('[[labels]]\nname = "Mug"\naliases = ["kettle"]\n[[labels]]\nname = "Kettle"', 3, "for 'Kettle' too"),
        ('[[labels]]\nname = "Mug"\naliases = ["cup", ""]\n[[labels]]\nname = "Kettle"', 2, "empty"),
        ('[[labels]]\nname = "Mug"\nalias = ["cup"]\n[[labels]]\nname = "Kettle"', 3, "unknown key 'alias'"),
        ('[[labels]]\nname = "Mug"\nn_unnamed = -1\n[[labels]]\nname = "Kettle"', 3, "no count"),
        ('[[labels]]\nname = "Mug"\nis_dominant = 1\n[[labels]]\nname = "Kettle"', 3, "not true or false"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_and_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(StageError) as error:
        read_labels(path)
    assert f"{path}, line {line}: " in str(error.value)
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("label,language,phrases\n", 1),
        ("label,language,strength,phrases\nMug,en,3,cup\nJug,en,3,jug\n", 3),
        ("label,language,strength,phrases\nMug,en,0,cup\n", 2),
        ("label,language,strength,phrases\nMug,en,3,cup||mug\n", 2),
        ("label,language,strength,phrases\nMug,en,9,cup\n", 2),
    ],
)
def test_a_mistake_in_the_phrase_table_names_file_and_line(tmp_path: Path, table: str, line: int) -> None:
    (tmp_path / "words.csv").write_text(table)
    with pytest.raises(StageError, match=rf"words\.csv, line {line}: "):
        read_labels(written(tmp_path, 'phrase_table = "words.csv"\nlabels = ["Mug", "Kettle"]'))


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.toml"
    for content in (b"\xff\xfe\x00", b"labels = " + b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(StageError, match=r"labels\.toml: cannot be read"):
            read_labels(path)
    (tmp_path / "words.csv").write_bytes(b"label,language,strength,phrases\nMug,en,3,caf\xe9\n")
    with pytest.raises(StageError, match=r"words\.csv: cannot be read"):
        read_labels(written(tmp_path, 'phrase_table = "words.csv"\nlabels = ["Mug", "Kettle"]'))


def test_many_labels_are_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"Label {n}" for n in range(MANY_LABELS + 1)]
    with caplog.at_level(logging.WARNING):
        assert len(read_labels(written(tmp_path, f"labels = {names[:-1]}"))) == MANY_LABELS
        assert not caplog.records
        assert len(read_labels(written(tmp_path, f"labels = {names}"))) == MANY_LABELS + 1
    assert "201 labels" in caplog.text


def test_the_command_line_wins_over_the_root_and_the_root_over_the_default(tmp_path: Path) -> None:
    assert labels_of(Layout(tmp_path)) == skincare_labels()
    written(tmp_path, 'labels = ["Mug", "Kettle"]')
    assert labels_of(Layout(tmp_path)).names == ("Mug", "Kettle")
    other = tmp_path / "other.toml"
    other.write_text('labels = ["Cat", "Dog"]')
    assert labels_of(Layout(tmp_path, other)).names == ("Cat", "Dog")
    with pytest.raises(MissingInputError):
        labels_of(Layout(tmp_path, tmp_path / "absent.toml"))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    written(tmp_path, 'labels = ["Mug", "Kettle"]')
    first = labels_of(Layout(tmp_path))
    written(tmp_path, 'labels = ["Mug", "Kettle", "Jug"]')
    assert labels_of(Layout(tmp_path)) != first


def test_the_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    labels = skincare_labels()
    assert replace(labels, source="elsewhere") == labels
    others = [
        replace(labels, names=labels.names[::-1]),
        replace(labels, families=labels.families[:-1]),
        replace(labels, aliases=labels.aliases[1:]),
        replace(labels, nameless=labels.nameless[1:]),
        replace(labels, dominant=()),
        replace(labels, pack_phrases=labels.pack_phrases[1:]),
        replace(labels, n_unnamed=(0,) * 14),
        replace(labels, domain="kitchen"),
        replace(labels, question="What?"),
        replace(labels, instruction="{labels}"),
    ]
    assert len({one.digest for one in (labels, *others)}) == 11


def test_a_model_carries_its_labels(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, FULL))
    labels.write(tmp_path)
    assert labels_of_model(tmp_path, skincare_labels()) == labels
    assert labels_of_model(tmp_path / "base", skincare_labels()) == skincare_labels()
    check_same_labels(tmp_path, replace(labels, aliases=()))
    for other in (skincare_labels(), replace(labels, question="What?"), replace(labels, names=labels.names[::-1])):
        with pytest.raises(StageError, match="was trained with other labels"):
            check_same_labels(tmp_path, other)


@pytest.mark.parametrize(
    "change",
    [
        {"names": [1, 2]}, {"names": "ab"}, {"names": []}, {"families": []}, {"question": None}, {"n_unnamed": [0]},
        {"n_unnamed": ["x", 0, 0]}, {"dominant": ["Jug"]}, {"aliases": [["jug", "Jug", "en"]]},
        {"aliases": [[1, "Mug", "en"]]}, {"pack_phrases": [["Mug", "en", "3", "cup"]]},
    ],
)  # fmt: skip
def test_a_copy_with_fields_of_another_kind_is_an_error(tmp_path: Path, change: dict[str, object]) -> None:
    read_labels(written(tmp_path, FULL)).write(tmp_path)
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StageError, match="holds no labels"):
        labels_of_model(tmp_path, skincare_labels())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"names": 3}', '{"names": ["a"], "families": [1]}', "[" * 100_000])
def test_a_damaged_copy_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(StageError, match="holds no labels"):
        labels_of_model(tmp_path, skincare_labels())


def test_a_name_that_is_no_label_is_an_error() -> None:
    labels: Labels = skincare_labels()
    labels.check("Serum")
    with pytest.raises(ValueError, match="'Mug' is none of the labels"):
        labels.check("Mug")


def test_labels_of_the_command_line_reach_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 'labels = ["Mug", "Kettle"]')
    monkeypatch.chdir(tmp_path)
    config = stage.StageConfig(root=tmp_path / "root", labels=Path("labels.toml"))
    assert labels_of(config.layout).names == ("Mug", "Kettle")
    assert run_all.shared_options(config.layout) == [
        "--root", str(tmp_path / "root"), "--labels", str(tmp_path / "labels.toml"),
    ]  # fmt: skip
    assert run_all.shared_options(Layout(tmp_path)) == ["--root", str(tmp_path)]


def test_a_stage_takes_labels_and_names_their_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('labels = ["Mug",\n"mug"]')
    command = [sys.executable, str(REPOSITORY / "src" / "score.py"), "--root", str(tmp_path), "--labels", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "mine.toml, line 2: the label 'mug' stands twice ('Mug')" in done.stderr
    path.unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "labels file not found" in done.stderr


def test_a_catalogue_of_own_labels_keeps_them_beside_the_types_of_shops(tmp_path: Path) -> None:
    """A shop's "shower gel" means Body Wash, unless that is no label and Shower Gel is one."""
    written(tmp_path, '[[labels]]\nname = "Shower Gel"\n[[labels]]\nname = "Mug"\naliases = ["cup"]')
    given = tmp_path / "given.csv"
    types = ("shower gel", "cups", "cup", "Serum")
    CATALOGUE.write(
        given, [CatalogueRow("X", f"https://shop.example/p/{one}/1000000{i}/", one) for i, one in enumerate(types)]
    )
    path = adopt_catalogue(source_named("web_page"), given, Layout(tmp_path))
    assert sorted(row.product_type for row in CATALOGUE.read(path)) == ["Mug", "Serum", "Shower Gel", "cups"]
    (tmp_path / "labels.toml").unlink()
    path = adopt_catalogue(source_named("web_page"), given, Layout(tmp_path))
    assert sorted(row.product_type for row in CATALOGUE.read(path)) == ["Body Wash", "Serum", "cup", "cups"]


def test_the_old_list_of_categories_is_that_of_the_default_labels():
    assert skincare_labels().names == categories.CATEGORIES
