"""What takes the longest of a cold start: the imports of torch, transformers and diffusers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """No garbage is looked for in the body, nor ever after among what it made, which is there to stay.

    A quarter of the time of those imports goes into looking through hundreds of thousands of new objects.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
