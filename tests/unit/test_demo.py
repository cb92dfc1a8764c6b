"""The demo: order, resumption, verdict, exit status, time and memory, with two small notebooks instead of the seven."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from mmedlite import demo

CHECK = """
import json, os
from pathlib import Path
row = {{"name": {name!r}, "status": {status!r}, "value": 0.5, "band": [0.4, 0.6]}}
with open(Path(os.environ["MMEDLITE_RUN"], "checks.jsonl"), "a") as file:
    print(json.dumps(row), file=file)
"""


def write(root: Path, name: str, *cells: str) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, root / "notebooks" / f"{name}.ipynb")


def check(name: str, status: str = "pass") -> str:
    return CHECK.format(name=name, status=status)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with two notebooks; the run's results already written by the second."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "mmedlite").mkdir()
    (tmp_path / "mmedlite" / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "NOTEBOOKS", ("00_first", "01_second"))
    monkeypatch.setattr(demo, "load_profile", lambda name: type("Profile", (), {"name": name}))
    for name in ("MMEDLITE_RUN", "MMEDLITE_PROFILE", "MMEDLITE_CASES"):  # restored when the test ends
        monkeypatch.setenv(name, "")
    write(tmp_path, "00_first", check("first"))
    results = 'Path(os.environ["MMEDLITE_RUN"], "results.json").write_text(json.dumps({"seed": 3}))'
    write(tmp_path, "01_second", check("second"), results)
    return tmp_path


def results(kit: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads((kit / "runs" / "latest" / "results.json").read_text())
    return read


def test_all_is_well(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kit / "artifacts").mkdir()
    (kit / "artifacts" / "timings.json").write_text('{"tiny": {"00_first": {"minutes": 2.0}, "01_second": {"minutes": 4.0}}}')
    assert demo.main(["--profile", "tiny"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "2 checks passed, 0 failed"
    assert out.count("checks passed") == 1
    assert "[1/2] 00_first, about 6 min left" in out and "[2/2] 01_second, about 4 min left" in out
    assert (kit / "runs" / "latest").is_symlink() and not os.path.isabs(os.readlink(kit / "runs" / "latest"))
    found = results(kit)
    assert found["seed"] == 3 and found["checks"] == {"passed": 2, "failed": 0, "skipped": 0, "assisted": 0}
    assert 0 < found["minutes"] < 2 and 0 < found["cpu_minutes"] < 2 and 0.05 < found["peak_memory_gib"] < 8  # type: ignore[operator]
    for name in demo.NOTEBOOKS:
        assert nbformat.read(kit / "runs" / "latest" / "notebooks" / f"{name}.ipynb", 4).cells[0].execution_count == 1
    first = (kit / "runs" / "latest").resolve()
    run, state = demo.open_run("tiny")
    assert run != first and not state["notebooks"], "a finished run must not be taken up again"


def test_failed_and_watched_checks(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(kit, "01_second", check("second", "fail"), check("third", "watch"))
    assert demo.main(["--profile", "tiny"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "2 checks passed, 1 failed"
    assert "fail  second" in out and "watch third" in out


def test_last_row_of_a_check_counts(kit: Path) -> None:
    write(kit, "01_second", check("second", "fail"), check("second"))
    assert demo.main([]) == 0


def test_no_check_is_a_failure(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(kit, "00_first", "1")
    write(kit, "01_second", "1")
    assert demo.main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 checks passed, 1 failed"


def test_raising_cell_is_named_and_the_run_resumes(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(kit, "01_second", check("second"), "1 / 0")
    assert demo.main([]) == 1
    out = capsys.readouterr().out
    assert "01_second: code cell [2] raised ZeroDivisionError: division by zero" in out
    assert "then go on:\n    make demo PROFILE=tiny\n" in out
    assert out.splitlines()[-1] == "2 checks passed, 1 failed"
    first = (kit / "runs" / "latest").resolve()
    assert "checks" not in results(kit)  # else they would be out of date when the demo goes on, and verify says so

    write(kit, "00_first", "1 / 0")  # done already: must not run again
    write(kit, "01_second", check("second"))
    assert demo.main([]) == 0
    out = capsys.readouterr().out
    assert "[1/2] 00_first: done before" in out
    assert out.splitlines()[-1] == "2 checks passed, 0 failed"
    assert (kit / "runs" / "latest").resolve() == first


def test_ctrl_c_keeps_what_is_done(kit: Path) -> None:
    """A real interrupt of a real process: it says how to go on, and its kernel ends with it."""
    write(kit, "01_second", f"import os, time; open({str(kit / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    code = (
        "import sys; from pathlib import Path; from mmedlite import demo; demo.NOTEBOOKS = ('00_first', '01_second');"
        f"demo.ROOT = Path({str(kit)!r}); demo.load_profile = lambda name: type('Profile', (), {{'name': name}});"
        "sys.exit(demo.main([]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(1800):
        if (kit / "pid").exists() and (kit / "pid").read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Stopped in 01_second. What is done is kept; go on with: make demo PROFILE=tiny" in out
    assert not psutil.pid_exists(int((kit / "pid").read_text()))
    write(kit, "01_second", check("second"))
    assert demo.main([]) == 0
    assert list(json.loads((kit / "runs" / "latest" / "demo.json").read_text())["notebooks"]) == list(demo.NOTEBOOKS)
    assert len(list((kit / "runs").iterdir())) == 2, "one run folder and the link to it"


def test_other_code_profile_or_cases_begin_anew(kit: Path) -> None:
    run, state = demo.open_run("tiny")
    state["notebooks"] = {"00_first": {}}
    demo.save(run / "demo.json", state)
    assert demo.open_run("tiny") == (run, state)
    run = run.rename(run.with_name("earlier"))  # two runs begun within one second would share a name
    (kit / "runs" / "latest").unlink()
    (kit / "runs" / "latest").symlink_to("earlier")
    assert demo.open_run("tiny") == (run, state)
    for profile, cases in (("gpu-3b", ""), ("tiny", "/a/table")):
        other, fresh = demo.open_run(profile, cases)
        assert other != run and not fresh["notebooks"]
        other.rename(other.with_name(f"{profile} {Path(cases).name}"))
        (kit / "runs" / "latest").unlink()
        (kit / "runs" / "latest").symlink_to("earlier")
    (kit / "runs" / "latest").unlink()
    (kit / "runs" / "latest").symlink_to("earlier")
    (kit / "mmedlite" / "code.py").write_text("x = 2\n")
    other, fresh = demo.open_run("tiny")
    assert other != run and not fresh["notebooks"] and fresh["code"] != state["code"]


@pytest.mark.parametrize("judged", [True, False])
def test_a_skipped_check_fails_where_bands_were_made(
    kit: Path, judged: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "judged", lambda facts: judged and facts == {"cases_sha256": "x"})
    facts = """Path(os.environ["MMEDLITE_RUN"], "run.json").write_text('{"cases_sha256": "x"}')"""
    write(kit, "01_second", check("second", "skipped"), f"import os\nfrom pathlib import Path\n{facts}")
    assert demo.main([]) == int(judged)
    assert capsys.readouterr().out.splitlines()[-1] == f"1 checks passed, {int(judged)} failed, 1 skipped"


def test_notebooks_read_the_named_cases(kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(kit)
    write(kit, "00_first", f"import os\nassert os.environ['MMEDLITE_CASES'] == {str(kit / 'table')!r}\n" + check("first"))
    write(kit, "01_second", "raise RuntimeError")
    assert demo.main(["--cases", "table"]) == 1
    assert f"CASES={kit / 'table'}" in capsys.readouterr().out  # how to go on


def test_dead_kernel_is_a_failed_notebook(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(kit, "01_second", "import os; os._exit(9)")
    assert demo.main([]) == 1
    out = capsys.readouterr().out
    assert "01_second: " in out and "died" in out.lower()


async def reply_that_meets_a_widget_message(kind: type[AsyncZMQSocketChannel], patience: float) -> str:
    """In one turn of the event loop the reply arrives and a message is sent; returns the type of what is then read."""
    context, session = zmq.asyncio.Context(), Session(key=b"test")
    kernel = zmq.Context.instance().socket(zmq.ROUTER)
    socket = context.socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{kernel.bind_to_random_port('tcp://127.0.0.1')}")
    channel = kind(socket, session)
    try:
        channel.send(session.msg("execute_request"))
        await asyncio.sleep(0.2)
        identity = kernel.recv_multipart()[0]
        reply = asyncio.ensure_future(channel.get_msg())
        await asyncio.sleep(0.2)
        session.send(kernel, session.msg("execute_reply"), ident=identity)
        time.sleep(0.2)
        channel.send(session.msg("comm_msg"))
        return str((await asyncio.wait_for(reply, patience))["msg_type"])
    finally:
        socket.close(0)
        kernel.close(0)


def test_a_widget_message_does_not_stop_the_demo() -> None:
    assert asyncio.run(reply_that_meets_a_widget_message(demo.PatientChannel, 60)) == "execute_reply"
    with pytest.raises(asyncio.TimeoutError):  # when this fails, the channel is no longer needed
        asyncio.run(reply_that_meets_a_widget_message(AsyncZMQSocketChannel, 3))


def test_kernels_are_spoken_to_on_the_patient_channel() -> None:
    manager = demo.PatientKernelManager()
    client = manager.client()
    assert client.shell_channel_class is demo.PatientChannel
    assert client.iopub_channel_class is not demo.PatientChannel


def test_unknown_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--profile", "no-such-world"]) == 1
    assert "Fix: " in capsys.readouterr().out
