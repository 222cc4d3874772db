"""benchmarks/mutation.py: its table of modules, and which survivors count as equivalent."""

import json

import pytest
from benchmarks import mutation


def test_modules_and_their_tests_exist():
    for module, tests in mutation.MODULES.items():
        assert (mutation.REPOSITORY / "src" / "skincare" / module).is_file(), module
        for name in tests.split():
            assert (mutation.REPOSITORY / "tests" / f"test_{name}.py").is_file(), name


@pytest.mark.parametrize(
    ("old", "new", "is_equivalent"),
    [
        ("zip(a, b, strict=True)", "zip(a, b, strict=None)", True),
        ("zip(a, b, strict=True)", "zip(a, b, )", True),
        ("np.array([1], dtype=np.intp).sum()", "np.array([1], ).sum()", True),
        ('text.encode("utf-8")', 'text.encode("UTF-8")', True),
        ('text.encode("utf-8")', 'text.encode("XXutf-8XX")', False),
        ("max(0.0, seconds)", "max(0.0, )", False),
        ("check(1, is_least=True)", "check(1, is_least=False)", False),
        ('{"name": 1}', '{"NAME": 1}', False),
    ],
)
def test_equivalent_survivors(old, new, is_equivalent):
    assert mutation._is_equivalent([f"-    {old}", f"+    {new}"]) == is_equivalent


def test_counts_exclude_what_did_not_run(tmp_path, monkeypatch):
    changes = {"a__mutmut_4": ["- x < 1", "+ x <= 1"], "a__mutmut_5": ["- zip(a, strict=True)", "+ zip(a, )"]}
    monkeypatch.setattr(mutation, "_change", lambda folder, name: changes[name])
    path = tmp_path / "mutants" / "src" / "skincare" / "urls.py.meta"
    path.parent.mkdir(parents=True)
    codes = dict(zip([f"skincare.a__mutmut_{n}" for n in range(1, 7)], [1, 3, 36, 0, 33, None], strict=True))
    path.write_text(json.dumps({"exit_code_by_key": codes}))
    assert mutation.count(tmp_path, "urls.py") == {
        "n_mutants": 6, "n_run": 5, "killed": 2, "timeout": 1, "survived": 1, "no_test": 1, "equivalent": 1,
        "kill_rate": 0.75, "survivors": ["a__mutmut_4"],
    }  # fmt: skip
