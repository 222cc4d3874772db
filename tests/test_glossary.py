"""The words that docs/glossary.md leaves out of the code stay out of it."""

import re
import subprocess

import pytest

from skincare.paths import REPOSITORY

# Words that have one meaning only here. Others of the glossary's last column ("focus", "copies", "states") are also
# plain English, so that a search cannot judge them.
GONE = (
    "picture",
    "recogniser",
    "contender",
    "journal",
    "keeper",
    "named rightly",
    "modelling",
    "answer tree",
    "asking",
    "reading an answer",
)

# Pattern of a line -> why it may hold such a word.
ALLOWED = {
    r"--(?:no-cache|n)-pictures": "the old name of an option, kept for one release",
    r"journal_mode": "a pragma of SQLite",
    r"<picture|\bpicture\b.*(?:tag|page\.)|\"picture\", \"pictures\"|(?:if |\()picture\b|\bpicture or":
        "the HTML element, and class names of shops' pages",
    r"\(\"file name\", |\(image\|picture\|photo\)|\(\?:the\|this\) \(\?:image\|picture":
        "words of users' tables and of models' answers",
    r"modelling (?:mask|pack)": "a kind of mask",
    r"\"picture\": ": "a column or a kind of page in a test",
}  # fmt: skip


def lines_with(word):
    found = subprocess.run(
        ["git", "grep", "-niE", rf"\b{word}", "--", "src", "tests", "benchmarks", "docs", "README.md", "Makefile"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    own = ("docs/glossary.md:", "tests/test_glossary.py:")
    return [line for line in found if not line.startswith(own)]


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs the files that git tracks")
@pytest.mark.parametrize("word", GONE)
def test_a_replaced_word_is_used_nowhere(word):
    assert [line for line in lines_with(word) if not any(re.search(allowed, line) for allowed in ALLOWED)] == []


def test_the_glossary_names_what_is_searched():
    glossary = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert [word for word in GONE if word not in glossary] == ["modelling"], "a folder's name in its old spelling"
