"""Rivals, one script each: they draw a request file into a folder that ``pigeon evaluate --baseline`` scores.

    python -m pigeon_cli.evaluation.baselines.NAME --requests JSONL --model DIR --out DIR

None of them has been run with real weights yet: they are tested on tiny random models, and say so.
"""

from __future__ import annotations

from typing import Final

STATUS: Final = "not run with real weights"
"""Goes when somebody has: then the docstrings and this constant are to be changed together."""
