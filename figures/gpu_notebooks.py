"""The seven notebooks at profile ``tiny`` on a GPU, each printed line compared with the stored one: ``python -m figures.gpu_notebooks``.

The stored lines were printed by a CPU and bear PASS and bands alone, so that another device must say the same. The machine's own Python and
torch serve; it needs the extra ``dev`` for nbval.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from figures._clock import made_from
from mmedlite.evidence import DATA
from mmedlite.profiles import ROOT


def main() -> int:
    """Run them, the last first, as ``make test`` does; store how many cells agree, and how long it took. 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this measurement needs a GPU; on a CPU `make test` compares the notebooks")
    books = sorted(map(str, (ROOT / "notebooks").glob("0*.ipynb")), reverse=True)
    with tempfile.TemporaryDirectory() as place:
        env = os.environ | {"MMEDLITE_PROFILE": "tiny", "MMEDLITE_RUN": str(Path(place) / "run"), "HF_HUB_OFFLINE": "1"}
        told = Path(place) / "told.xml"
        words = ["-p", "tests.nbval_plugin", "--nbval", "--nbval-cell-timeout=900", "--nbval-kernel-startup-timeout=180", f"--junitxml={told}"]
        status = subprocess.run([sys.executable, "-m", "pytest", *words, *books], cwd=ROOT, env=env).returncode
        suite = ET.parse(told).getroot().find("testsuite")
    if suite is None or not int(suite.attrib["tests"]):
        parser.error("nbval compared no cell")
    failed = sum(int(suite.attrib[kind]) for kind in ("failures", "errors"))
    found = {"cells": int(suite.attrib["tests"]), "failed": failed, "seconds": round(float(suite.attrib["time"]), 1)}
    (DATA / "gpu_notebooks.json").write_text(json.dumps({**found, "made_from": made_from()}, indent=1) + "\n", encoding="utf-8")
    print(f"{found['cells'] - failed} of {found['cells']} cells say what they say on a CPU; {found['seconds']:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
