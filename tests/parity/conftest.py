"""Fixtures of the parity tests."""

from __future__ import annotations

import pytest

from tests.parity.golden import Goldens


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """The folder of recorded numbers (``PIGEON_PARITY`` or the bundled copy)."""
    return Goldens()
