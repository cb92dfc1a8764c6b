"""The shape of the repository: import order, small files, alt text, nothing of one machine in what is tracked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each module imports only from those before it (doctor, demo and plan stand beside cli, which starts them).
ORDER = [
    *("profiles", "provenance", "pictures", "cases"),
    *("prompts", "answers", "rewards", "advantages", "features", "prompt_once", "checkpoints", "models"),
    *("opinions", "store"),
    *("asks", "budget", "simulated", "chat", "endpoint", "local_specialists", "specialists", "store_tools", "curriculum"),
    *("contrasts", "baselines", "inference"),
    *("health", "dose", "devices", "progress", "grpo", "processes", "sft", "triage", "attending", "evaluation", "ideal_reader", "run_folder"),
    *("summary", "evidence", "looking", "trust", "rescore", "gain_map", "run", "dry_run", "side_by_side"),
    *("model_card", "pipeline", "checks", "world_bands", "probes", "verify_evidence", "verify_stamps", "verify"),
    *("plots", "paper_audit"),
    *("claims", "report", "widgets", "live", "toy", "case_browser", "token_entropy", "exercises"),
    *("inspector", "chair", "room", "store_demo", "bundle", "doctor", "demo", "copies", "plan", "cli", "__main__"),
]
SOURCES = sorted(path for folder in ("mmedlite", "data_prep", "figures") for path in (ROOT / folder).rglob("*.py"))


def imported(source: str) -> set[str]:
    """The modules of mmedlite that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mmedlite.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module == "mmedlite":
                found |= {module.split(".")[0]} if node.level and module else {alias.name for alias in node.names}
            elif module.startswith("mmedlite."):
                found.add(module.split(".")[1])
    return found - {"__version__"}


def misplaced(module: str, source: str) -> set[str]:
    """Imports of a module that do not come before it in ORDER."""
    return {name for name in imported(source) if name not in ORDER[: ORDER.index(module)]}


MODULES = [path.relative_to(ROOT / "mmedlite") for path in sorted((ROOT / "mmedlite").rglob("*.py"))]


@pytest.mark.parametrize("path", [path for path in MODULES if path != Path("__init__.py")], ids=str)
def test_import_order(path: Path) -> None:
    module = path.with_suffix("").parts[0]  # of a module in several files, its folder
    assert module in ORDER, f"{path} has no place in the order of modules"
    own = {module} if len(path.parts) > 1 else set()
    assert misplaced(module, (ROOT / "mmedlite" / path).read_text(encoding="utf-8")) - own == set()


@pytest.mark.parametrize(
    "line",
    [
        "from mmedlite.grpo import train",
        "from mmedlite import grpo",
        "import mmedlite.grpo",
        "from . import grpo",
        "from .grpo import train",
        "def f():\n    from mmedlite.grpo import train",
        "from mmedlite.cases import Case",  # itself
        "from mmedlite.nowhere import x",
    ],
)
def test_import_order_finds_each_breach(line: str) -> None:
    assert len(misplaced("cases", line)) == 1
    assert misplaced("cases", "import json\nfrom mmedlite.profiles import ROOT\nfrom mmedlite import __version__") == set()


def test_import_is_light() -> None:
    code = "import sys, mmedlite; assert not {'torch', 'transformers', 'trl', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_one_idea_a_file(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{lines} lines: past 300 a file holds two ideas"


def without_alt(text: str) -> list[str]:
    """Images of a Markdown text that say nothing to who cannot see them."""
    bare = re.findall(r"!\[\s*\]\([^)]*\)", text)
    tags = [tag for tag in re.findall(r"<img\b[^>]*>", text, re.I) if not re.search(r"\balt=(\"[^\"]+\"|'[^']+')", tag)]
    return bare + tags


def test_images_have_alt_text() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("*.md")}
    for path in (ROOT / "notebooks").glob("**/*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert {path.name: without_alt(text) for path, text in texts.items() if without_alt(text)} == {}


def test_alt_text_check_finds_bare_images() -> None:
    assert without_alt("![](a.png)") and without_alt('<img src="a.png">') and without_alt('<img alt="" src="a.png">')
    assert not without_alt('![a plot](a.png) <img src="a.png" alt="a plot">')


# Written in pieces, so that this file does not find itself.
FORBIDDEN = [
    "pypi" + r"\.org",
    "python" + "hosted",
    "download" + r"\.pytorch",
    "index" + "-url",
    r"/opt/(?=wheels|pypi)",
    "file:" + "//",
    r"(?<![\w.~/-])/(?:work|home|root|Users)" + r"/\w",
    r"[A-Z]:\\" + r"Users",
    "/shared/" + "(?:design|reference|trials)",
]


def leaks(text: str) -> list[str]:
    """Hosts of registries and paths of one machine."""
    return [match.group() for pattern in FORBIDDEN for match in re.finditer(pattern, text)]


def test_nothing_of_one_machine_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so nothing says which files are tracked")
    found = {}
    for name in listed.stdout.splitlines():
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data[:8000]:  # text
            text = re.sub(r'"image/\w+": "[^"]*"', "", data.decode("utf-8", errors="replace"))
            if leaks(text):
                found[name] = leaks(text)[:5]
    assert found == {}


@pytest.mark.parametrize("text", ["see /ho" + "me/ann/kit", "--extra-index" + "-url x", "https://py" + "pi.org/simple", "in /wo" + "rk/main"])
def test_leaks_are_found(text: str) -> None:
    assert leaks(text)


def test_relative_paths_are_no_leak() -> None:
    assert not leaks("runs/latest, ../shared/data, mmedlite/profiles, https://example.org/home/a, work/life")
