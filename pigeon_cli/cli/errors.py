"""One ordered table from exceptions to a sentence, a hint and an exit status; tracebacks only with ``--debug``."""

from __future__ import annotations

import errno
import functools
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

import typer

from pigeon_cli.cli.talk import print_error
from pigeon_cli.core.errors import (
    INTERRUPTED_EXIT_CODE,
    InputError,
    MemoryBudgetError,
    OutputError,
    PigeonError,
    UsageError,
)

UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT})
FAILED_ALLOCATION: Final = "can't allocate memory"
"""What torch's CPU allocator says in a plain ``RuntimeError``."""

TRAINING_MODULES: Final = frozenset({"resvg_py", "scipy", "skimage", "sklearn"})
"""What the extra ``train`` brings and nothing else needs."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """What the user reads and what the shell gets."""

    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    matches: Callable[[BaseException], bool]
    describe: Callable[[BaseException], Failure]


def is_out_of_memory(error: BaseException) -> bool:
    """Memory errors of Python and of torch; torch is known by name, so that it need not be imported."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or FAILED_ALLOCATION in str(error)


def is_unwritable(error: BaseException) -> bool:
    """A full disk or a read-only file system."""
    return isinstance(error, OSError) and error.errno in UNWRITABLE


def is_untrainable(error: BaseException) -> bool:
    """The extra ``train`` is not installed."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in TRAINING_MODULES


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _of_pigeon(error: BaseException) -> Failure:
    assert isinstance(error, PigeonError)
    return Failure(error.message, error.hint, error.exit_code)


def _of_unwritable(error: BaseException) -> Failure:
    assert isinstance(error, OSError)
    hint = "free some space or choose another folder with --out"
    return Failure(f"cannot write {_place(error)}: {error.strerror}", hint, OutputError.exit_code)


def _of_forbidden(error: BaseException) -> Failure:
    # Folders for results are tried before the work begins, so it is an input as a rule.
    assert isinstance(error, OSError)
    return Failure(f"cannot use {_place(error)}: {error.strerror}", "check its permissions", InputError.exit_code)


def _place(error: OSError) -> str:
    return error.filename if isinstance(error.filename, str) else "a file"


TABLE: Final = (
    Rule(lambda error: isinstance(error, PigeonError), _of_pigeon),
    Rule(
        lambda error: isinstance(error, KeyboardInterrupt),
        lambda error: Failure("interrupted", "", INTERRUPTED_EXIT_CODE),
    ),
    Rule(
        is_out_of_memory,
        lambda error: Failure(
            f"not enough memory: {_first_line(error)}",
            "close other programs, ask for fewer images with -n, or use --device cpu",
            MemoryBudgetError.exit_code,
        ),
    ),
    Rule(is_unwritable, _of_unwritable),
    Rule(
        is_untrainable,
        lambda error: Failure(
            f"training needs more: {_first_line(error)}", "pip install 'pigeon-cli[train]'", UsageError.exit_code
        ),
    ),
    Rule(lambda error: isinstance(error, PermissionError), _of_forbidden),
    Rule(
        lambda error: True,
        lambda error: Failure(
            f"unexpected {type(error).__name__}: {_first_line(error)}", "run again with --debug for the traceback", 1
        ),
    ),
)


def describe(error: BaseException) -> Failure:
    """The first row of the table that matches; the last one matches everything."""
    return next(rule for rule in TABLE if rule.matches(error)).describe(error)


def reports_errors(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Wraps a command: any failure becomes lines on stderr and an exit status. Reads the command's ``debug``."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if kwargs.get("debug"):
                traceback.print_exc(file=sys.stderr)
            failure = describe(error)
            print_error(failure.message, failure.hint)
            raise typer.Exit(failure.exit_code) from error

    return wrapped
