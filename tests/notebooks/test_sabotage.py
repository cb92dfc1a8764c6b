"""Does the gate over the notebooks bite? The command that `make test` runs, on small notebooks with one fault each."""

from __future__ import annotations

import copy
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from mmedlite.demo import PatientKernelManager

WIDGET = """
from ipywidgets import interact
from matplotlib import pyplot as plt

def draw(share=1):
    plt.plot([0, 1], [0, 1 / share])
    plt.show()
    print("slope", 1 / share)

print("PASS slope within 0.9 to 1.1")
_ = interact(draw, share=(1, 3))
"""

PROGRESS = """
import random, sys
from IPython.display import HTML, display
print("step", random.random(), file=sys.stderr)
display(HTML(f"<b>{random.random()} s left</b>"))
print("done")
"""

PICTURE = """
from matplotlib import pyplot as plt
plt.plot([1, 2])
plt.show()
"""

CELLS = {
    "number": 'accuracy = 0.62\nprint(f"PASS triage accuracy {accuracy} within 0.60 to 0.65")',
    "widget": WIDGET,
    "progress": PROGRESS,
    "picture": PICTURE,
    "offline": (
        "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), timeout=2)\n"
        "except OSError as error:\n    print(type(error).__name__)"
    ),
}


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """A sound notebook, executed, outputs stored."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("run"))}}
    NotebookClient(book, resources=resources, kernel_manager_class=PatientKernelManager, coalesce_streams=True).execute()
    del book.metadata["widgets"]
    return book


def nbval(book: NotebookNode, folder: Path, root: Path) -> tuple[int, dict[str, bool], int]:
    """(exit status, verdict of each cell, cells compared) of the gate over one notebook."""
    nbformat.write(book, folder / "book.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "tests.nbval_plugin", "--nbval", "--nbval-cell-timeout=300"]
    command += ["-p", "no:cacheprovider", f"--junitxml={folder}/report.xml", str(folder / "book.ipynb")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    cases = list(ET.parse(folder / "report.xml").iter("testcase"))
    assert [case.get("name") for case in cases] == [f"Cell {i}" for i in range(len(CELLS))], done.stdout
    verdicts = {name: case.find("failure") is None for name, case in zip(CELLS, cases, strict=True)}
    compared = sum(case.find("properties/property[@name='compared']") is not None for case in cases)
    return done.returncode, verdicts, compared


def cell(book: NotebookNode, name: str) -> NotebookNode:
    found: NotebookNode = book.cells[list(CELLS).index(name)]
    return found


def wrong_number(book: NotebookNode) -> str:
    cell(book, "number").outputs[0].text = "PASS triage accuracy 0.63 within 0.60 to 0.65\n"
    return "number"


def changed_code(book: NotebookNode) -> str:
    cell(book, "number").source = CELLS["number"].replace("= 0.62", "= 0.58")
    return "number"


def missing_output(book: NotebookNode) -> str:
    cell(book, "number").outputs = []
    return "number"


def output_no_longer_printed(book: NotebookNode) -> str:
    cell(book, "number").source = "accuracy = 0.62"
    return "number"


def new_verdict_beside_a_widget(book: NotebookNode) -> str:
    cell(book, "widget").source += '\nprint("FAIL accuracy outside band [0.60, 0.65]")'
    return "widget"


def raising_callback(book: NotebookNode) -> str:
    cell(book, "widget").source = WIDGET.replace("0, 1 / share", "0, 1 / (share - share)")
    return "widget"


def wrong_number_beside_a_widget(book: NotebookNode) -> str:
    cell(book, "widget").outputs[0].text = "PASS slope within 0.9 to 1.2\n"
    return "widget"


def missing_picture(book: NotebookNode) -> str:
    cell(book, "picture").outputs = []
    return "picture"


def stripped_count(book: NotebookNode) -> str:
    cell(book, "number").execution_count = None
    return "number"


def raising_cell(book: NotebookNode) -> str:
    cell(book, "number").source += "\nraise ValueError('no')"
    return "number"


def test_untouched_is_green(stored: NotebookNode, tmp_path: Path, root: Path) -> None:
    assert cell(stored, "offline").outputs[0].text == "NetworkBlocked\n"
    status, verdicts, compared = nbval(stored, tmp_path, root)
    assert (status, set(verdicts.values()), compared) == (0, {True}, 4)


FAULTS = [
    wrong_number,
    changed_code,
    missing_output,
    output_no_longer_printed,
    new_verdict_beside_a_widget,
    raising_callback,
    wrong_number_beside_a_widget,
    missing_picture,
    stripped_count,
    raising_cell,
]


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_each_fault_turns_it_red(spoil: Callable[[NotebookNode], str], stored: NotebookNode, tmp_path: Path, root: Path) -> None:
    book = copy.deepcopy(stored)
    guilty = spoil(book)
    status, verdicts, compared = nbval(book, tmp_path, root)
    assert status == 1
    assert [name for name, fine in verdicts.items() if not fine] == [guilty]
    assert compared == (4 if guilty == "picture" else 3), "a cell that differs must not count as compared"
