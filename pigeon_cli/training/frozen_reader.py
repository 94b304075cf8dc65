"""Parts that stay as they are while others learn, and what is seen of references and tastes through them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

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

M = TypeVar("M", bound=nn.Module)


def frozen(module: M, folder: ModelFolder, part: str, device: torch.device) -> M:
    """``module`` on ``device`` with the folder's ``part``, without gradients; raises as :func:`load_part`."""
    module.to(device)
    load_part(module, folder.part(part))
    return module.requires_grad_(False).eval()


def frozen_reader(folder: ModelFolder, quantizer: Quantizer, adapter: Adapter, device: torch.device) -> ReferenceReader:
    """The folder's embedding decoder and translator around ``adapter``, which the caller may train."""
    spec = folder.spec
    decoder = frozen(EmbeddingDecoder(spec.decoder), folder, "decoder", device)
    translator = None
    if spec.translator is not None:
        translator = frozen(Translator(spec.translator), folder, "translator", device)
    return ReferenceReader(spec, quantizer, decoder, adapter, translator)


def frozen_taste_reader(folder: ModelFolder, device: torch.device) -> TasteReader | None:
    """The folder's taste reader, ``None`` for a model without one."""
    return None if folder.spec.taste is None else frozen(TasteReader(folder.spec.taste), folder, "taste", device)


def tastes_of(images: Tensor, tokenizer: VisualTokenizer, reader: TasteReader) -> Tensor:
    """Tastes [B, taste width] of RGB pictures [B, 3, S, S] in 0..1."""
    vectors: Tensor = reader(picture_statistics(images, tokenizer.patch_features(normalise(images))))
    return vectors
