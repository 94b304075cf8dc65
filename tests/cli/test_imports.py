"""Imports without a look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pigeon_cli.cli.imports import without_collecting


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_nothing_is_collected_while_importing_and_what_is_there_stays() -> None:
    with without_collecting():
        assert not gc.isenabled()
        kept = [[number] for number in range(1000)]
    assert gc.isenabled() and gc.get_freeze_count() >= len(kept)


def test_an_error_leaves_collecting_on() -> None:
    with pytest.raises(ImportError), without_collecting():
        raise ImportError
    assert gc.isenabled()


def test_who_does_not_collect_goes_on_so() -> None:
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
