"""Which options go together, and what reaches the pipeline."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from .conftest import HISTORY_LIMIT, picture


def used(pipeline) -> list[str]:
    return [image.path.name for image in pipeline.requests[-1].used_history]


def test_defaults_reach_the_pipeline(pigeon, pipeline, liked: Path, wish: Path) -> None:
    assert pigeon("generate", "--history", liked, "--ref", wish).exit_code == 0
    request = pipeline.requests[0]
    assert used(pipeline) == ["2.png", "3.png", "8.png", "9.png", "10.png"]
    assert (request.count, request.seed, request.reference_mask, request.history_mask) == (4, 0, None, None)
    assert (request.mask, request.model, request.device, request.alpha) == (None, "mini", "auto", "white")
    assert request.reference is not None and request.reference.words == ""


def test_settings_reach_the_pipeline(pigeon, pipeline, liked: Path, wish: Path) -> None:
    text = """
        --seed 7 --ref-mask 0.5 --history-mask 0 --mask off --device cpu --alpha #00ff7F --steps 3
        --guidance 2 --temperature 0 --top-k 4 --max-tokens 9 --history-size 2 -n 1 --emotion joy
    """
    assert pigeon("generate", "--history", liked, "--ref", wish, *text.split()).exit_code == 0
    request = pipeline.requests[0]
    assert (request.seed, request.reference_mask, request.history_mask, request.mask) == (7, 0.5, 0.0, "off")
    assert (request.device, request.alpha, request.steps, request.guidance) == ("cpu", "#00ff7F", 3, 2.0)
    assert (request.temperature, request.top_k, request.max_tokens, request.count) == (0.0, 4, 9, 1)
    assert request.emotion == "joy"
    assert used(pipeline) == ["9.png", "10.png"]


def test_history_takes_several_files_and_repeats(pigeon, pipeline, liked: Path, wish: Path, tmp_path: Path) -> None:
    other = picture(tmp_path / "other" / "4.png", 50)
    paths = [liked / "1.png", liked / "10.png"]
    assert pigeon("generate", "--history", *paths, "--ref", wish, "--history", other.parent).exit_code == 0
    assert used(pipeline) == ["1.png", "4.png", "10.png"]


def test_time_order_and_recursion(pigeon, pipeline, liked: Path, wish: Path) -> None:
    oldest, newest = picture(liked / "deep" / "a.png", 60), liked / "1.png"
    os.utime(oldest, (1000, 1000))
    os.utime(newest, (4_000_000_000, 4_000_000_000))
    options = ("--ref", wish, "--order", "time", "--recursive", "--history-size", "7")
    assert pigeon("generate", "--history", liked, *options).exit_code == 0
    assert (used(pipeline)[0], used(pipeline)[-1], len(used(pipeline))) == ("a.png", "1.png", 7)


@pytest.mark.parametrize(
    ("history", "end"), [(("-",), b"\n"), (("-",), b"\r\n"), (("-", "-0"), b"\0"), (("-0",), b"\0")]
)
def test_list_on_standard_input(pigeon, pipeline, liked: Path, wish: Path, history, end: bytes) -> None:
    odd = picture(liked / ("odd \"na\nme' 🦊.png" if end == b"\0" else "odd \"name' 🦊.png"), 70)
    listed = end.join(os.fsencode(path) for path in (liked / "3.png", odd)) + end
    result = pigeon("generate", "--history", *history, "--ref", wish, stdin=listed)
    assert result.exit_code == 0, result.stderr
    assert used(pipeline) == ["3.png", odd.name]


def test_a_list_goes_with_folders(pigeon, pipeline, liked: Path, wish: Path, tmp_path: Path) -> None:
    listed = os.fsencode(picture(tmp_path / "other" / "99.png", 50)) + b"\n"
    assert pigeon("generate", "--history", "-", "--history", liked, "--ref", wish, stdin=listed).exit_code == 0
    assert used(pipeline) == ["3.png", "8.png", "9.png", "10.png", "99.png"]


@pytest.mark.parametrize(
    ("listed", "says"), [(b"", "is empty"), (b"a\0b\0", "separated by NUL"), (b"nowhere.png\n", "no file or folder")]
)
def test_lists_that_cannot_be_used(pigeon, pipeline, wish: Path, listed: bytes, says: str) -> None:
    result = pigeon("generate", "--history", "-", "--ref", wish, stdin=listed)
    assert (result.exit_code, result.stdout, pipeline.requests) == (5, "", [])
    assert says in result.stderr


def test_more_history_than_the_model_reads_names_the_limit(pigeon, pipeline, liked: Path, wish: Path) -> None:
    arguments = ("generate", "--history", liked, "--ref", wish, "--history-size")
    result = pigeon(*arguments, str(HISTORY_LIMIT + 1))
    assert (result.exit_code, result.stdout, pipeline.requests) == (2, "", [])
    assert f"reads {HISTORY_LIMIT} history images" in result.stderr
    assert f"use --history-size {HISTORY_LIMIT}" in result.stderr
    assert pigeon(*arguments, str(HISTORY_LIMIT)).exit_code == 0


def test_a_negative_zero_is_zero(pigeon, pipeline, liked: Path, wish: Path) -> None:
    assert pigeon("generate", "--history", liked, "--ref", wish, "--ref-mask", "-0.0").exit_code == 0
    assert str(pipeline.requests[0].reference_mask) == "0.0"


def test_reference_is_left_out_of_the_history(pigeon, pipeline, liked: Path, wish: Path) -> None:
    shutil.copy(wish, liked / "99.png")
    result = pigeon("generate", "--history", liked, "--ref", wish)
    assert "warning: left out of the history" in result.stderr and "same content as the reference" in result.stderr
    assert "99.png" not in used(pipeline) and len(used(pipeline)) == 5
    warnings = json.loads(Path("pigeon-out/report.json").read_bytes())["warnings"]
    assert warnings == [f"left out of the history: {liked}/99.png (same content as the reference)"]


def test_a_history_of_nothing_but_the_reference(pigeon, pipeline, wish: Path) -> None:
    result = pigeon("generate", "--history", wish, "--ref", wish)
    assert (result.exit_code, result.stdout, pipeline.requests) == (5, "", [])
    assert "same content as the reference" in result.stderr


def test_words_from_option_before_sidecar(pigeon, pipeline, liked: Path, wish: Path) -> None:
    wish.with_suffix(".txt").write_bytes(b"\xef\xbb\xbfa sly\r\nfox \xff\n")
    pigeon("generate", "--history", liked, "--ref", wish)
    assert pipeline.requests[-1].reference.words == "a sly fox \ufffd"
    assert pipeline.requests[-1].reference.words_from == "red fox.txt"
    pigeon("generate", "--history", liked, "--ref", wish, "--caption", "a hen", "--force")
    assert (pipeline.requests[-1].reference.words, pipeline.requests[-1].reference.words_from) == ("a hen", "caption")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no history"),
        (("liked", "--ref", "red fox.png"), "files need --history"),
        (("--history", "liked"), "either a reference image or a prompt"),
        (("--history", "liked", "--ref", "red fox.png", "--prompt", "x"), "either a reference image or a prompt"),
        (("--history", "liked", "--prompt", " "), "the prompt is empty"),
        (("--history", "liked", "--prompt", "x", "--caption", "y"), "--caption"),
        (("--sample", "--history", "liked"), "--sample brings its own"),
        (("--history", "liked", "--ref", "red fox.png", "-0"), "-0 is about"),
        (("--sample", "--ref-mask", "nan"), "--ref-mask"),
        (("--sample", "--ref-mask", "1.5"), "--ref-mask"),
        (("--sample", "--alpha", "blue"), "--alpha"),
        (("--sample", "--emotion", " "), "the emotion is empty"),
        (("--sample", "--order", "size"), "--order"),
        (("--sample", "--seed", "-1"), "--seed"),
        (("--sample", "--history-mask", "nan"), "--history-mask"),
        (("--sample", "--guidance", "inf"), "finite"),
        (("--sample", "--mask", "best"), "--mask"),
        (("--sample", "-n", "0"), "--count"),
        (("--sample", "--history-size", "0"), "--history-size"),
        (("--sample", "--nonsense"), "--nonsense"),
    ],
)
def test_usage_errors(pigeon, pipeline, liked: Path, wish: Path, arguments: tuple[str, ...], says: str) -> None:
    result = pigeon("generate", *arguments)
    assert (result.exit_code, result.stdout, pipeline.requests) == (2, "", [])
    assert says in result.stderr
    assert not Path("pigeon-out").exists()


def test_sample_uses_the_images_in_the_package(pigeon, pipeline) -> None:
    from pigeon_cli.cli.inputs import sample_sources
    from pigeon_cli.core.errors import InputError

    try:
        sources = sample_sources()
    except InputError as error:
        pytest.skip(error.message)
    result = pigeon("generate", "--sample", "-n", "1")
    assert (result.exit_code, result.stdout) == (0, "pigeon-out/reference-01.png\n")
    assert pipeline.requests[0].reference.path == sources.reference
    assert len(used(pipeline)) == 5
