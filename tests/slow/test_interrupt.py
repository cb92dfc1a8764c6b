"""The two long trainings, stopped with the notebook's stop button and run again: they go on from the last checkpoint, to the same weights."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from mmedlite.profiles import ROOT
from tests.browser.excerpt import excerpt
from tests.small import short_profile

STEPS = 16  # of the stage that is stopped; a checkpoint is written every ten
TRAININGS = {  # notebook -> call of the cell that trains, folder of the training that is watched, adapters
    "02_triage_grpo": ("triage_step(run)", "triage", ("triage",)),
    "04_attending_entropy": ("attending_step(run)", "diverse", ("diverse/hard", "paper_like/hard")),
}


@contextmanager
def kernel(run: Path, profile: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[object, BlockingKernelClient]]:
    for name, value in {"RUN": run, "PROFILE": profile}.items():
        monkeypatch.setenv(f"MMEDLITE_{name}", str(value))
    manager, client = start_new_kernel(cwd=str(ROOT / "notebooks"))
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def told(client: BlockingKernelClient, source: str) -> dict[str, str]:
    """The kernel's answer to a cell that is waited for."""
    content: dict[str, str] = client.execute(source, reply=True, timeout=600, store_history=False)["content"]
    if content["status"] == "aborted":  # after an error the kernel gives back for a moment whatever it is sent; nobody clicks so fast
        time.sleep(1)
        return told(client, source)
    return content


def rows(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_stopped_cell_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, training, adapters = TRAININGS[name]
    text = re.sub(r"(?m)^(\[triage\]\nsteps = )\d+", rf"\g<1>{STEPS}", short_profile())
    head, hard, tail = text.partition('name = "hard"')
    (profile := tmp_path / "short.toml").write_text(head + hard + re.sub(r"steps = \d+", f"steps = {STEPS}", tail, count=1), encoding="utf-8")
    needed, cell = (c.source for c in excerpt(ROOT / "notebooks" / f"{name}.ipynb", [call]).cells)
    ends = []
    for stopped in (True, False):
        run = tmp_path / f"stopped-{stopped}"
        steps = run / "rollouts" / training / "steps.jsonl"
        with kernel(run, profile, monkeypatch) as (manager, client):
            assert told(client, needed)["status"] == "ok"
            if stopped:
                asked = client.execute(cell, store_history=False)
                end = time.monotonic() + 300
                while max((row["step"] for row in rows(steps) if row["stage"] in ("triage", "hard")), default=0) < 12:
                    assert time.monotonic() < end, f"no step in {steps}"
                    time.sleep(0.2)
                manager.interrupt_kernel()  # type: ignore[attr-defined]
                while (reply := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != asked:
                    pass
                assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", "KeyboardInterrupt")
                before = rows(steps)
            answer = told(client, cell)  # the same cell again
            assert answer["status"] == "ok", answer
        after = rows(steps)
        if stopped:
            assert after[: len(before)] == before and 0 < len(after) - len(before) < STEPS  # it did not begin anew
        ends.append([(run / "adapters" / adapter / "adapter_model.safetensors").read_bytes() for adapter in adapters])
    assert ends[0] == ends[1]
