"""Fixtures of the parity tests."""

from __future__ import annotations

import pytest

from tests.parity.golden import MINI, TRUE, Goldens


@pytest.fixture(scope="session", params=[MINI, pytest.param(TRUE, marks=pytest.mark.slow)])
def goldens(request: pytest.FixtureRequest) -> Goldens:
    """The numbers recorded at one size, each size in turn; true width takes minutes and some 4 GB."""
    return Goldens(request.param)
