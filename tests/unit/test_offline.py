"""The network is closed to tests and to what they start; this machine stays open to itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request

import pytest

from tests.offline.no_network import NetworkBlocked

# 192.0.2.1 belongs to nobody (RFC 5737)
PROBE = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=2)"


def test_connections_and_names_are_refused() -> None:
    with pytest.raises(NetworkBlocked):
        socket.create_connection(("192.0.2.1", 80), timeout=2)
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(OSError, match="tests run without network"):
        urllib.request.urlopen("http://example.org", timeout=2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(NetworkBlocked):
        udp.sendto(b"x", ("192.0.2.1", 53))


def test_processes_started_from_here_are_closed_too() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert done.returncode == 1
    assert "NetworkBlocked" in done.stderr


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5):
            pass
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5):
            pass


def test_settings_for_every_run() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert int(os.environ["OMP_NUM_THREADS"]) >= 1
