"""All tests: no network, and the repository's root at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.offline.no_network import block_everywhere

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def no_network() -> None:
    """Sockets reach this machine only, in the tests and in the kernels and processes that they start."""
    block_everywhere()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
