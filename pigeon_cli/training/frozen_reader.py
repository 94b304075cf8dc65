"""What other stages see of references and tastes in training: through parts that stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.taste import TasteReader, picture_statistics
from pigeon_cli.models.translator import Translator
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.pipeline.reference import ReferenceReader
from pigeon_cli.training.batches import normalise
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder


def frozen_reader(folder: ModelFolder, quantizer: Quantizer, adapter: Adapter, device: torch.device) -> ReferenceReader:
    """The folder's embedding decoder and translator around ``adapter``, which the caller may train."""
    spec = folder.spec
    decoder = EmbeddingDecoder(spec.decoder).to(device)
    load_part(decoder, folder.part("decoder"))
    translator = None
    if spec.translator is not None:
        translator = Translator(spec.translator).to(device)
        load_part(translator, folder.part("translator"))
        translator.requires_grad_(False).eval()
    return ReferenceReader(spec, quantizer, decoder.requires_grad_(False).eval(), adapter, translator)


def frozen_taste_reader(folder: ModelFolder, device: torch.device) -> TasteReader | None:
    """The folder's taste reader, ``None`` for a model without one."""
    if folder.spec.taste is None:
        return None
    reader = TasteReader(folder.spec.taste).to(device)
    load_part(reader, folder.part("taste"))
    return reader.requires_grad_(False).eval()


def tastes_of(images: Tensor, tokenizer: VisualTokenizer, reader: TasteReader) -> Tensor:
    """Tastes [B, taste width] of RGB pictures [B, 3, S, S] in 0..1."""
    vectors: Tensor = reader(picture_statistics(images, tokenizer.patch_features(normalise(images))))
    return vectors
