"""Every command that a page names is run, with options of ``RUNS`` for its placeholders and for what would train or fetch for long.

What another suite runs is named in ``ELSEWHERE`` with the suite; of the two measurements on real pictures it runs the function, since the
command would write over the stored numbers. ``tests/unit/test_docs.py`` says which commands the pages name.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmedlite.profiles import ROOT
from tests.sets import make_mmmu, make_omni, make_rad, make_slake
from tests.small import short_profile

ELSEWHERE = {  # command -> the suite that runs it, and the word by which it does
    "jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb": ("tests/browser/conftest.py", '"jupyterlab"'),
    "mmedlite bundle workshop.tar": ("tests/slow/test_bundle.py", '"bundle", tmp_path / "workshop.tar"'),
    "mmedlite.demo --profile tiny": ("tests/timed/test_demo.py", "mmedlite.demo"),
    "figures.real_small --source DIR": ("tests/slow/test_real_images.py", "real_small.measure("),
    "figures.real_triage --cases TABLE": ("tests/slow/test_real_images.py", "real_triage.measure("),
}
SMALL = "--profile {short} --cases {table}"
RUNS = {  # command as the pages write it -> as it is run here, and a word that it must say
    "data_prep image_folder --source DIR --out TABLE": ("--source {pictures} --out {table}", "60"),
    "data_prep vqa_rad": ("--source {rad} --out {folder}/vqa_rad", "vqa_rad"),
    "data_prep leaks --source data/vqa_rad": ("--source {folder}/vqa_rad", "picture"),
    "data_prep merge --source data/vqa_rad data/slake data/path_vqa --shifted data/omnimedvqa data/mmmu --out data/paper": (
        "--source {folder}/vqa_rad {folder}/slake --shifted {folder}/omnimedvqa {folder}/mmmu --out {folder}/paper", "cases"),
    "mmedlite run --profile tiny --cases TABLE": (f"{SMALL} --out {{folder}}/run", "checks passed"),
    "mmedlite run": (f"{SMALL} --out {{folder}}/run", "checks passed"),  # the same folder: nothing is trained again
    "mmedlite run --profile FILE.toml --dry-run": (f"{SMALL} --out {{folder}}/run --dry-run", "not answered yet"),
    "mmedlite run --profile gpu-3b --cases TABLE --dry-run": ("--profile gpu-3b --cases {table} --out {folder}/dry --dry-run", "requests"),
    "mmedlite verify": ("{folder}/run --cases {table}", "0 problems"),
    "mmedlite verify runs/NAME": ("{folder}/run --cases {table}", "0 problems"),
    "mmedlite doctor": ("", "[OK] python"),
    "mmedlite plan --minutes 20 --memory 16": ("--profile tiny --minutes 20 --memory 16", "tiny"),
    "mmedlite plan --minutes 20 --memory 8": ("--profile tiny --minutes 20 --memory 8", "tiny"),
    "mmedlite answers --cases FILE.jsonl": ("--cases {folder}/answers.jsonl", "wrong_letter"),
    'mmedlite seat "spring 26" 7': ('"spring 26" 7', "World 356424"),
    "mmedlite share runs/world-N": ("{folder}/run --out {folder}/room", "share-"),
    "mmedlite pool FOLDER --watch": ("{folder}/room --watch", "room.html"),
    "mmedlite store {stats,audit,export,import} STORE [FOLDER]": ("stats {folder}/run/opinions", "answers"),
    "figures.rate_sweep": (f"{SMALL} --steps 1 --out {{folder}}/rates", "best on validation cases"),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the placeholders of the commands lie: sixty pictures with labels, VQA-RAD in small, a profile of few steps."""
    folder = tmp_path_factory.mktemp("docs")
    (pictures := folder / "pictures").mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
        rows.append({"image": f"{i}.png", "modality": ("X-Ray", "CT", "Dermoscopy")[i % 3], "label": ("mass", "cyst")[i % 2], "licence": "CC0"})
    (pictures / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (short := folder / "short.toml").write_text(short_profile(), encoding="utf-8")
    graded = {"response": "<answer>mass</answer>", "options": {"A": "cyst", "B": "mass"}, "expected": "B"}
    (folder / "answers.jsonl").write_text(json.dumps(graded) + "\n", encoding="utf-8")
    for name, make in (("slake", make_slake), ("omnimedvqa", make_omni), ("mmmu", make_mmmu)):
        (source := folder / f"{name}-source").mkdir()
        said(["data_prep", name, "--source", str(make(source)), "--out", str(folder / name)])
    return {"folder": str(folder), "pictures": str(pictures), "table": str(folder / "table"), "short": str(short), "rad": str(make_rad(folder))}


def said(words: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def watched(words: list[str], word: str) -> str:
    """What a command that goes on until Ctrl-C says up to a word; it must end well when it is stopped."""
    going = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert going.stdout is not None
    line = going.stdout.readline()
    going.send_signal(signal.SIGINT)
    assert going.wait(timeout=60) == 0 and word in line
    return line


@pytest.mark.timeout(1500)
def test_every_command_of_the_pages_runs(places: dict[str, str]) -> None:
    for command, (words, word) in RUNS.items():
        module, *rest = command.split()
        given = [w.format(**places).strip('"') for w in re.findall(r'"[^"]*"|\S+', words)]
        full = [module, *(rest[:1] if module in ("mmedlite", "data_prep") else []), *given]
        began = time.monotonic()
        told = watched(full, word) if "--watch" in full else said(full)
        print(f"{time.monotonic() - began:.0f} s: {command}")
        assert word in told, f"{command}: {told[-1500:]}"
    assert (Path(places["folder"]) / "room" / "room.html").is_file() and (Path(places["folder"]) / "run" / "report.html").is_file()
