"""The clock of the scripts that measure speed and cost, and what stands beside a measured time."""

from __future__ import annotations

import platform
import time
from typing import Any

import torch
import transformers
import trl

from mmedlite.provenance import code_sha256


def now() -> float:
    """The clock, after all work on the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def made_from() -> dict[str, Any]:
    """What stands beside a measured time: code, versions, device, threads, date."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "code": code_sha256(), "torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__,
        "device": gpu or platform.machine(), "threads": torch.get_num_threads(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
