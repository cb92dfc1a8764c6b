"""Did every suite run? `python tests/check_suites.py REPORTS {test,all}` holds JUnit reports against tests/suites.txt.

A line of the list: path (a test file, a folder of test files, or a notebook), the least number of passed tests, the
command that runs it (test or all), then, if wanted, `compared=N` (cells whose stored stdout nbval compared) or
`optional` (may skip; the reason is printed). Every test file below a folder must have passed at least one test.
A test file or notebook that no line covers is an error.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Suite:
    """One line of the list."""

    path: str
    least: int
    level: str
    compared: int = 0
    optional: bool = False


@dataclass
class Ran:
    """What the reports say, by test file."""

    passed: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, set[str]] = field(default_factory=dict)


def read_list(file: Path) -> list[Suite]:
    """The committed list; a line that cannot be read raises ValueError with its number."""
    suites = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            suite = Suite(words[0].rstrip("/"), int(words[1]), words[2])
            for word in words[3:]:
                if word == "optional":
                    suite.optional = True
                else:
                    suite.compared = int(word.removeprefix("compared="))
        except (IndexError, ValueError) as error:
            raise ValueError(f"{file}, line {number}: cannot read '{line.strip()}'") from error
        if suite.level not in ("test", "all"):
            raise ValueError(f"{file}, line {number}: '{suite.level}' is neither test nor all")
        suites.append(suite)
    return suites


def read_reports(folder: Path, files: list[str]) -> Ran:
    """Passed tests, compared cells and reasons for skips of each test file."""
    # pytest writes tests/unit/test_x.py as "tests.unit.test_x", a class in it as "tests.unit.test_x.TestName"
    by_name = {file.removesuffix(".py").replace("/", "."): file for file in files}
    ran = Ran()
    for report in sorted(folder.glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):
            name = case.get("classname", "")
            file = by_name.get(name) or by_name.get(name.rpartition(".")[0])
            if file is None:
                continue
            skip = case.find("skipped")
            if skip is not None:
                ran.skipped.setdefault(file, set()).add(skip.get("message", ""))
            elif case.find("failure") is None and case.find("error") is None:
                ran.passed[file] += 1
                ran.compared[file] += case.find("properties/property[@name='compared']") is not None
    return ran


def check(root: Path, suites: list[Suite], reports: Path, level: str) -> list[str]:
    """What is wrong, one sentence each."""
    tests = [path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py")]
    books = [path.relative_to(root).as_posix() for path in (root / "notebooks").glob("*.ipynb")]
    files = sorted(tests + books)
    ran, problems = read_reports(reports, files), []
    alone = {suite.path for suite in suites}  # a file with a line of its own answers to that line only
    covered = set()
    for suite in suites:
        below = [f for f in files if f == suite.path or (f.startswith(suite.path + "/") and f not in alone)]
        covered.update(below)
        if level == "test" and suite.level == "all":
            continue
        if not below:
            problems.append(f"{suite.path}: no such test file")
        reasons = "; ".join(sorted(reason for file in below for reason in ran.skipped.get(file, set())))
        if suite.optional:
            if not sum(ran.passed[file] for file in below):
                print(f"{suite.path}: ran nothing, and may: {reasons or 'not reported'}")
            continue
        because = f" (skipped: {reasons})" if reasons else ""
        problems += [f"{file}: ran nothing{because}" for file in below if not ran.passed[file]]
        passed, compared = sum(ran.passed[f] for f in below), sum(ran.compared[f] for f in below)
        if passed < suite.least:
            problems.append(f"{suite.path}: {passed} tests passed, at least {suite.least} wanted{because}")
        if compared < suite.compared:
            problems.append(f"{suite.path}: {compared} cells compared, at least {suite.compared} wanted")
    problems += [f"{file}: no line of tests/suites.txt covers it" for file in files if file not in covered]
    return problems


def main(reports: str, level: str) -> int:
    """1 if a suite did not run."""
    suites = read_list(ROOT / "tests" / "suites.txt")
    problems = check(ROOT, suites, Path(reports), level)
    for problem in problems:
        print(f"SUITE {problem}")
    print(f"{len(suites)} suites listed, {len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
