"""``config.json`` is changed in one piece, and nothing but what was asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pigeon_cli.weights.spec_file import change_spec, read_spec, spec_text
from tests.tiny_model import tiny_spec


def test_what_is_not_changed_stays_as_it_is_in_the_file_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path, spec = tmp_path / "config.json", tiny_spec(300)
    edited = dataclasses.replace(spec, history_size=3)
    path.write_text(spec_text(edited), encoding="utf-8")
    change_spec(path, lambda now: dataclasses.replace(now, default_mask="random"))
    assert read_spec(path) == dataclasses.replace(edited, default_mask="random")
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]
