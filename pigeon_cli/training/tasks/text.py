"""Stage ``text``: the SentencePiece model of mini's prompt words, from labels of train meanings (RECIPE.md point 6)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import sentencepiece

from pigeon_cli.pipeline.words import WORD_LIST, split_words
from pigeon_cli.training.data.dataset import IconDataset
from pigeon_cli.weights.store import ModelFolder


def train_text(folder: ModelFolder, dataset: IconDataset) -> int:
    """Write ``text.model`` with byte fallback, and the words it was made of for :mod:`pigeon_cli.pipeline.words`.

    Returns the number of pieces, ``spec.vocabulary.text_size``.
    """
    meanings = {record.meaning: record for record in dataset.by_split["train"]}
    sentences = sorted({" ".join([record.label, *record.tags]) for record in meanings.values()})
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=folder.spec.vocabulary.text_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        num_threads=1,
        minloglevel=2,
    )
    _write(folder.text_model, model.getvalue())
    known = sorted({word for sentence in sentences for word in split_words(sentence)})
    _write(folder.path / WORD_LIST, ("\n".join(known) + "\n").encode())
    return int(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size())


def _write(target: Path, data: bytes) -> None:
    temporary = target.with_suffix(".part")
    temporary.write_bytes(data)
    os.replace(temporary, target)
