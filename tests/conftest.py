"""All tests: no network, and the repository's root at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.offline.no_network import block_everywhere
from tests.server import KEY, Server, serving

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def no_network() -> None:
    """Sockets reach this machine only, in the tests and in the kernels and processes that they start."""
    block_everywhere()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Starts a chat-completions server and points the client at it."""
    with ExitStack() as running:

        def begin(**settings: Any) -> Server:
            server = running.enter_context(serving(**settings))
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            return server

        yield begin
