"""Rivals, one script each: they draw a request file into a folder that ``pigeon evaluate --baseline`` scores.

    python -m pigeon_cli.evaluation.baselines.NAME --requests JSONL --model DIR --out DIR

None of them has been run with real weights yet: they are tested on tiny random models, and say so.
"""
