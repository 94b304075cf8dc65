"""The device of these tests, and the figures that they leave behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Remember a line that is printed after the tests."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures under the name of the card, which is what makes them worth anything."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        terminalreporter.write("".join(f"{figure}\n" for figure in figures))
