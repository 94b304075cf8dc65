"""How language model and alignment see references in training: through parts that stay as they are."""

from __future__ import annotations

import torch

from pigeon_cli.models.adapter import Adapter
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.models.translator import Translator
from pigeon_cli.pipeline.reference import ReferenceReader
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
