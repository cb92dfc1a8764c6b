"""No test may reach the network: sockets open to this machine only, here and in Python processes started from here."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent)
_connect, _connect_ex, _sendto, _getaddrinfo = (
    socket.socket.connect,
    socket.socket.connect_ex,
    socket.socket.sendto,
    socket.getaddrinfo,
)


class NetworkBlocked(OSError):
    """A test tried to leave this machine."""


def _is_local(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _demand_local(host: Any) -> None:
    if not _is_local(host):
        raise NetworkBlocked(f"tests run without network, but something called {host!r}")


def _guard(method: Any) -> Any:
    def guarded(self: socket.socket, *args: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _demand_local(args[-1][0])  # the address is the last argument of connect, connect_ex and sendto
        return method(self, *args)

    return guarded


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _demand_local(host)
    return _getaddrinfo(host, *args, **kwargs)


def block() -> None:
    """Close this process to the network."""
    socket.socket.connect = _guard(_connect)  # type: ignore[method-assign]
    socket.socket.connect_ex = _guard(_connect_ex)  # type: ignore[method-assign]
    socket.socket.sendto = _guard(_sendto)  # type: ignore[method-assign]
    socket.getaddrinfo = _guarded_getaddrinfo


def block_everywhere() -> None:
    """Close this process and, through PYTHONPATH and sitecustomize.py, every Python process it starts (kernels)."""
    block()
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != HERE]
    os.environ["PYTHONPATH"] = os.pathsep.join([HERE, *paths])
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
