"""``pigeon train`` as a command: which stage takes which options, and what is printed."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

FOLDERS = ("--data", "data", "--model", "model", "--runs", "runs")


@pytest.mark.parametrize(
    ("stage", "option"),
    [
        *[
            (stage, option)
            for stage in ("text", "encode", "memory")
            for option in (
                ("--steps", "9"), ("--batch", "9"), ("--learning-rate", "0.1"), ("--evaluate-every", "9"),
                ("--resume",), ("--init-from", "other"),
            )
        ],
        *[(stage, option) for stage in ("text", "memory") for option in (("--looks", "9"), ("--cells", "9"))],
        ("memory", ("--seed", "1")),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(pigeon, stage: str, option: tuple[str, ...]) -> None:
    result = pigeon("train", stage, *FOLDERS, *option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such option" in result.stderr and option[0] in result.stderr


@pytest.mark.parametrize("rate", ["nan", "inf", "-inf", "-0.1"])
@pytest.mark.parametrize("command", [("train", "vae", *FOLDERS), ("align", "reconstruct", *FOLDERS)])
def test_a_learning_rate_is_a_number_from_0(pigeon, command: tuple[str, ...], rate: str) -> None:
    result = pigeon(*command, "--learning-rate", rate)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--learning-rate" in result.stderr


def test_a_path_that_is_no_text_is_printed_as_it_is(pigeon, monkeypatch: pytest.MonkeyPatch) -> None:
    built = lambda source, out: SimpleNamespace(images=2, meanings=1)  # noqa: E731
    monkeypatch.setattr("pigeon_cli.training.data.icons.build_dataset", built)
    result = pigeon("train", "data", os.fsdecode(b"caf\xe9"))
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == b"caf\xe9\n" and result.stderr == "2 images of 1 meanings\n"
