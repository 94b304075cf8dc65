"""The errors a user can meet: what happened, what to do next, and the process exit status."""

from __future__ import annotations

from typing import ClassVar


class PigeonError(Exception):
    """An expected failure, shown without a traceback.

    ``message`` says what happened and names the file; ``hint`` says what to type or change next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PigeonError):
    """Options that contradict each other or lie outside their range (exit status 2)."""

    exit_code = 2


class WeightsError(PigeonError):
    """Weights that are missing, damaged, or of another shape (exit status 3)."""

    exit_code = 3


class MemoryBudgetError(PigeonError):
    """Not enough memory on the device (exit status 4)."""

    exit_code = 4


class InputError(PigeonError):
    """Images or texts that cannot be used (exit status 5)."""

    exit_code = 5


class OutputError(PigeonError):
    """Results that cannot be written (exit status 6)."""

    exit_code = 6


INTERRUPTED_EXIT_CODE = 130
