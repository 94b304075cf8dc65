"""One user seed, many independent named streams: the order and size of batches changes nothing."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, *names: object) -> int:
    """63-bit seed of the stream ``names`` under the user's ``seed``; the same on every machine."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
