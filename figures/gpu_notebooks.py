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
        if not told.exists():
            parser.error("pytest compared nothing, see above")
        tests = list(ET.parse(told).getroot().iter("testcase"))
    wrong = {kind: sum(test.find(kind) is not None for test in tests) for kind in ("failure", "error", "skipped")}
    if wrong["skipped"] or not tests:  # nbval skips what follows a cell that ran too long
        parser.error(f"{wrong['skipped']} of {len(tests)} cells were not run, so that nothing is stored")
    compared = sum(p.attrib.get("name") == "compared" for test in tests for p in test.iter("property"))
    seconds = sum(float(test.attrib["time"]) for test in tests)
    found = {"compared": compared, "failed": wrong["failure"] + wrong["error"], "seconds": round(seconds, 1)}
    (DATA / "gpu_notebooks.json").write_text(json.dumps({**found, "made_from": made_from()}, indent=1) + "\n", encoding="utf-8")
    print(f"{compared} cells print what they print on a CPU, {found['failed']} do not; {seconds:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
