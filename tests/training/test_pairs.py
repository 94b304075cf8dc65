"""Preference pairs: drawn in batches as one by one, chosen by score, continued where they were left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from pigeon_cli.cli.main import app
from pigeon_cli.core.errors import InputError
from pigeon_cli.engine.devices import choose_device
from pigeon_cli.engine.residency import ADAPTER, ALIGNED, DECODER, SCORER, TOKENIZER, Parts
from pigeon_cli.pipeline.decode import condition
from pigeon_cli.pipeline.imagine import imagine, see_dials, word_prompt
from pigeon_cli.pipeline.reference import join_references, reader_of
from pigeon_cli.training.candidates import CandidateSettings, CandidateSource, closeness, continue_prompts
from pigeon_cli.training.pairs import NEAR_TIES, PreferencePair, ScoredCandidate, choose_pair, read_pairs
from pigeon_cli.training.request_source import open_requests
from pigeon_cli.training.stages import text_processor
from pigeon_cli.weights.store import ModelFolder

DIALS = (0.0, 0.5, 1.0)
LEAST = 1e-4
"""A scorer of random weights finds all pictures much alike."""


@pytest.fixture(autouse=True)
def _small_near_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in NEAR_TIES:
        monkeypatch.setitem(NEAR_TIES, kind, LEAST)


def pairs(icons: Path, tiny: ModelFolder, out: Path, *words: str) -> Result:
    options = ["--data", str(icons), "--model", str(tiny.path), "--out", str(out), "--device", "cpu"]
    return CliRunner().invoke(app, ["align", "pairs", *options, "--dials", "0,0.5,1", *words])


def made(icons: Path, tiny: ModelFolder, out: Path, *words: str) -> dict[str, float]:
    result = pairs(icons, tiny, out, *words)
    assert result.exit_code == 0, result.stderr
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def test_a_batch_of_requests_draws_what_each_draws_alone(icons: Path, tiny: ModelFolder) -> None:
    device = choose_device("cpu")
    parts, spec = Parts(tiny, device), tiny.spec
    source = CandidateSource(parts, text_processor(tiny), CandidateSettings(DIALS, "both", 3))
    requests_of = open_requests(icons, device, 3, spec, "windows", print)
    with torch.inference_mode(), parts.use(TOKENIZER) as tokenizer, parts.use(ALIGNED) as language:
        requests = requests_of.read(tokenizer, range(5))
        assert len({len(request.history) for request in requests}) > 1
        masks = [source._masks(request) for request in requests]
        with reader_of(parts, ADAPTER) as reader:
            slots = [see_dials(mask, reader) for mask in masks]
        asked = [word_prompt(source.text, spec, one.history, one.words) for one in requests]

        def streams(number: int) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(100 * number + place) for place in range(len(DIALS))]

        kept = [mask.keep[0, mask.layout.types[0] == 1] for mask in masks]
        together = continue_prompts(
            language, spec, asked, kept, join_references(slots), [one for number in range(5) for one in streams(number)]
        )
        alone = [
            drawn
            for number, (prompt, mask, slot) in enumerate(zip(asked, masks, slots, strict=True))
            for drawn in imagine(language, spec, prompt, mask, slot, range(len(DIALS)), streams(number), spec.sampling)
        ]
    assert [drawn.token_ids for drawn in together] == [drawn.token_ids for drawn in alone]
    assert len({drawn.token_ids for drawn in alone}) > 5


def test_best_and_worst_are_chosen_and_near_ties_left_out() -> None:
    candidates = [ScoredCandidate(dial, (), (1,), score) for dial, score in ((0.0, 0.2), (0.5, 1.4), (1.0, -0.3))]
    pair = choose_pair(candidates, "both")
    assert pair is not None
    assert (pair[0].dial, pair[1].dial) == (0.5, 1.0)
    assert choose_pair([replace(candidates[0], score=score) for score in (0.0, 0.5 * LEAST)], "both") is None


def test_the_right_answer_is_closest_to_itself(tiny: ModelFolder) -> None:
    parts = Parts(tiny, choose_device("cpu"))
    codes = [tuple(range(start, start + 16)) for start in (0, 20, 40)]
    with torch.inference_mode(), parts.use(TOKENIZER) as tokenizer, parts.use(DECODER) as decoder:
        contexts = condition(decoder, tokenizer.quantizer, codes).context
        with parts.use(SCORER) as scorer:
            values = closeness(scorer, contexts, contexts[1:2])
    assert values[1] == pytest.approx(1.0, abs=1e-5)
    assert values[1] - max(values[0], values[2]) > 1e-4


def test_pairs_hold_what_stage_two_reads(icons: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    figures = made(icons, tiny, out, "--requests", "10", "--score", "history")
    read = read_pairs(out, tiny.spec)
    assert figures["pairs"] == len(read) > 0
    assert figures["near_ties"] == 10 - len(read)
    for pair in read:
        assert pair.chosen.score - pair.rejected.score >= LEAST
        assert [dial for dial, _ in pair.scores] == [0.0, 0.5, 1.0]
        for side in (pair.chosen, pair.rejected):
            assert len(side.kept) == max(1, int(len(pair.reference) * (1 - side.dial)))
            assert abs(dict(pair.scores)[side.dial] - side.score) < 1e-4
        assert PreferencePair.from_json(pair.to_json()) == pair


def test_a_broken_off_file_is_continued_to_the_same_bytes(icons: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    made(icons, tiny, whole, "--requests", "11", "--score", "answer")
    made(icons, tiny, broken, "--requests", "6", "--score", "answer")
    with broken.open("ab") as stream:
        stream.write(b'{"request": 6, "hist')
    made(icons, tiny, broken, "--requests", "11", "--score", "answer")
    assert broken.read_bytes() == whole.read_bytes()
    assert len({pair.request // 4 for pair in read_pairs(whole, tiny.spec)}) == 3
    refused = pairs(icons, tiny, broken, "--requests", "11", "--score", "answer", "--seed", "1")
    assert refused.exit_code == InputError.exit_code
    assert "other settings" in refused.stderr


def test_a_line_that_is_no_pair_is_named(icons: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    made(icons, tiny, out, "--requests", "4", "--score", "history")
    line = out.read_text().splitlines()[0]
    for wrong in ("{}", line[:-5], line.replace('"reference": [', '"reference": [99999, ')):
        out.write_text(f"{line}\n{wrong}\n")
        with pytest.raises(InputError, match=r"line 2 of .*pairs\.jsonl is no preference pair"):
            read_pairs(out, tiny.spec)


@pytest.mark.parametrize("dials", ["0.5", "0,2", "a,b", "nan,0"])
def test_dials_must_be_at_least_two_shares(dials: str, icons: Path, tiny: ModelFolder, tmp_path: Path) -> None:
    result = pairs(icons, tiny, tmp_path / "pairs.jsonl", "--dials", dials)
    assert result.exit_code == 2
    assert "--dials" in result.stderr
