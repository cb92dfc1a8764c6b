"""One headless Chromium and one JupyterLab for all tests of this folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class Lab(NamedTuple):
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path  # its root


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The machine's own Chromium: Playwright's would have to be downloaded."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not (found := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(root: Path) -> Path:
    """Where the pictures of what was seen are kept."""
    (folder := root / "reports" / "browser").mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab in a folder of its own, with no settings of the user and a fresh run of the profile tiny."""
    home = tmp_path_factory.mktemp("lab")
    (folder := home / "notebooks").mkdir()
    port, token = free_port(), secrets.token_hex(16)
    own = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "MMEDLITE_PROFILE": "tiny", "MMEDLITE_RUN": str(home / "run")}
    options = [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
    options += [f"--IdentityProvider.token={token}", "--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True"]
    with open(home / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=os.environ | own, stdout=log, stderr=log)
    try:
        lab = Lab(f"http://127.0.0.1:{port}", token, folder)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{lab.url}/api/status?token={token}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text(encoding="utf-8")[-3000:]
                time.sleep(0.25)
        yield lab
    finally:
        server.terminate()  # its kernels go with it
        server.wait(30)
