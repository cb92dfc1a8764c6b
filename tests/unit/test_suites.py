"""The list of suites: one that ran nothing fails, whatever pytest's exit status was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.check_suites import ROOT, Suite, check, read_list

LIST = [
    Suite("tests/unit", 2, "test"),
    Suite("notebooks/00.ipynb", 2, "test", compared=1),
    Suite("tests/slow", 1, "all"),
]
PASSED, FAILED = "", "<failure message='no'/>"
SKIPPED = "<skipped message='no real images here'/>"
COMPARED = "<properties><property name='compared' value='stdout'/></properties>"


def case(classname: str, inner: str = PASSED) -> str:
    return f"<testcase classname='{classname}' name='x'>{inner}</testcase>"


GOOD = [
    case("tests.unit.test_a"),
    case("tests.unit.test_a.TestB"),
    case("tests.unit.deep.test_c"),
    case("notebooks.00.ipynb", COMPARED),
    case("notebooks.00.ipynb"),
    case("tests.slow.test_s"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("tests/unit/test_a.py", "tests/unit/deep/test_c.py", "tests/slow/test_s.py", "notebooks/00.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(tree: Path, cases: list[str], suites: list[Suite] = LIST, level: str = "all") -> list[str]:
    reports = tree / "reports"
    reports.mkdir(exist_ok=True)
    (reports / "all.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return check(tree, suites, reports, level)


def test_all_ran(tree: Path) -> None:
    assert found(tree, GOOD) == []


def test_slow_suites_are_not_wanted_of_make_test(tree: Path) -> None:
    assert found(tree, GOOD[:-1], level="test") == []
    assert found(tree, GOOD[:-1]) == [
        "tests/slow/test_s.py: ran nothing",
        "tests/slow: 0 tests passed, at least 1 wanted",
    ]


@pytest.mark.parametrize("inner", [FAILED, SKIPPED, "<error/>"])
def test_a_file_that_passed_nothing(tree: Path, inner: str) -> None:
    problems = found(tree, [*GOOD[:2], case("tests.unit.deep.test_c", inner), *GOOD[3:]])
    assert len(problems) == 1 and problems[0].startswith("tests/unit/deep/test_c.py: ran nothing")
    assert ("no real images here" in problems[0]) == (inner == SKIPPED)


def test_too_few_tests(tree: Path) -> None:
    assert found(tree, GOOD, [Suite("tests/unit", 9, "test"), *LIST[1:]]) == ["tests/unit: 3 tests passed, at least 9 wanted"]


def test_too_few_comparisons(tree: Path) -> None:
    bare = [case("notebooks.00.ipynb") if "notebooks" in c else c for c in GOOD]
    assert found(tree, bare) == ["notebooks/00.ipynb: 0 cells compared, at least 1 wanted"]


def test_no_reports(tree: Path) -> None:
    assert "tests/unit/test_a.py: ran nothing" in found(tree, [])


def test_unlisted_files(tree: Path) -> None:
    assert found(tree, GOOD, LIST[1:]) == [
        "tests/unit/deep/test_c.py: no line of tests/suites.txt covers it",
        "tests/unit/test_a.py: no line of tests/suites.txt covers it",
    ]


def test_listed_but_gone(tree: Path) -> None:
    assert "tests/gone: no such test file" in found(tree, GOOD, [*LIST, Suite("tests/gone", 0, "test")])


def test_optional_suite_may_skip_and_says_why(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skips = [*GOOD[:2], case("tests.unit.deep.test_c", SKIPPED), *GOOD[3:]]
    optional = Suite("tests/unit/deep/test_c.py", 0, "test", optional=True)
    assert found(tree, skips, [*LIST, optional]) == []
    assert "ran nothing, and may: no real images here" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["tests/unit", "tests/unit x test", "tests/unit 1 sometimes", "tests/unit 1 test perhaps"])
def test_damaged_list(tmp_path: Path, line: str) -> None:
    (tmp_path / "suites.txt").write_text(f"# words\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_list(tmp_path / "suites.txt")


def test_real_reports_of_pytest(tmp_path: Path) -> None:
    """What pytest really writes is what the check reads; an empty run has an exit status of its own, 5."""
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_x.py").write_text(
        "import pytest\nclass TestY:\n    def test_in(self): pass\ndef test_z(): pytest.skip('no camera')\n"
    )
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    run += ["--junitxml", "reports/r.xml"]
    assert subprocess.run([*run, "tests"], cwd=tmp_path, capture_output=True).returncode == 0
    suite = Suite("tests/unit", 1, "test")
    assert check(tmp_path, [suite], tmp_path / "reports", "test") == []
    assert subprocess.run([*run, "tests", "-k", "nothing"], cwd=tmp_path, capture_output=True).returncode == 5
    assert len(check(tmp_path, [suite], tmp_path / "reports", "test")) == 2


def test_committed_list_can_be_read_and_has_the_seven_notebooks() -> None:
    suites = read_list(ROOT / "tests" / "suites.txt")
    assert sum(suite.compared >= 5 for suite in suites) == 7
    assert {"tests/unit", "tests/notebooks", "tests/slow"} <= {suite.path for suite in suites}
