"""What the pages for people say can be done: every command is known with its options, every make target and every linked file is there."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from figures import draw_went_wrong, readme
from tests.slow.test_docs_run import ELSEWHERE, RUNS

ROOT = Path(__file__).resolve().parents[2]
PAGES = (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "instructor/README.md")), *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"\.venv/bin/python -m ([\w.]+)((?: [^`#\n|]+)?)")
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")


def found(pattern: re.Pattern[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Every match on every page: (page, groups)."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    return [(page.parent.name, match.groups()) for page, text in texts.items() for match in pattern.finditer(text)]


@functools.cache
def help_of(module: str, word: str) -> str:
    """Help of a module, or of its subcommand."""
    return subprocess.run([sys.executable, "-m", module, *([word] if word else []), "--help"], cwd=ROOT, capture_output=True, text=True).stdout


COMMANDS = sorted({(module, rest.strip()) for _, (module, rest) in found(COMMAND) if not module.endswith(".NAME")})


@pytest.mark.parametrize(("module", "rest"), COMMANDS, ids=lambda value: value)
def test_commands_are_known_with_their_options(module: str, rest: str) -> None:
    word = rest.split()[0] if module in ("mmedlite", "data_prep") else ""
    told = help_of(module, word)
    assert told, f"python -m {module} {word} does not exist"
    options = re.findall(r"(?<!\S)--[\w-]+(?![\w.-])", rest)  # Jupyter tells its traits, --LabApp.default_url, under --help-all alone
    assert {option for option in options if not re.search(rf"{option}\b", told)} == set()


def test_every_command_is_run_by_a_suite() -> None:
    """Here, so that a command which a page names anew is missed at once and not by the slow suites."""
    assert {*RUNS, *ELSEWHERE} == {f"{module} {rest}".strip() for module, rest in COMMANDS}
    assert [suite for suite, word in ELSEWHERE.values() if word not in (ROOT / suite).read_text(encoding="utf-8")] == []


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) > 15 and ("mmedlite", 'seat "spring 26" 7') in COMMANDS


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    asked = {groups[0] for _, groups in found(re.compile(r"(?:`|^)(?:\w+=\S+ )*make ([\w-]+)", re.M))}
    assert {"demo", "test"} <= asked <= targets


def test_named_and_linked_files_exist() -> None:
    links = [(page.parent / link, link) for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    named = re.compile(r"`((?:figures|mmedlite|tests|artifacts|instructor|data_prep)/[\w./-]*\w\.\w+)`")
    links += [(ROOT / groups[0], groups[0]) for _, groups in found(named)]
    assert len(links) > 5
    assert [link for file, link in links if not file.exists()] == []


def test_readme_holds_what_its_script_writes() -> None:
    assert readme.START + readme.block() + readme.END in (ROOT / "README.md").read_text(encoding="utf-8")
    for name in readme.QUESTIONS:
        first = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells[0].source
        assert re.search(r"^Time: \d", first, re.M) and first == readme.timed(name)


def test_runs_that_went_wrong_are_told_from_their_logs() -> None:
    assert draw_went_wrong.PAGE.read_text(encoding="utf-8") == draw_went_wrong.page()
