"""Drawings in another finish of the same hand as a model draws them itself: shaded as a soft hand shades them."""

from __future__ import annotations

import random
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.models.diffusion import Beside, build_unet, build_vae, encode_latents, seen_picture
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.taste import TasteReader
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import encode_pictures
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.drawn_pictures import draw_pictures
from pigeon_cli.training.frozen_reader import frozen, tastes_of
from pigeon_cli.training.sequences import most_typical
from pigeon_cli.weights.store import ModelFolder

TOLD_BY: Final = 60
"""Plain drawings of each set by which its finish is told."""


class UNetFinisher:
    """Makes them with a model's own embedding decoder, UNet and VAE, at the steps and guidance of generation."""

    def __init__(
        self,
        folder: ModelFolder,
        batches: IconBatches,
        tokenizer: VisualTokenizer,
        reader: TasteReader,
        hands: tuple[str, ...],
    ) -> None:
        """``hands`` are icon sets; those without train drawings cannot be asked for."""
        self.spec, self.tokenizer, self.device = folder.spec, tokenizer, batches.device
        self.decoder = frozen(EmbeddingDecoder(self.spec.decoder), folder, "decoder", self.device)
        # diffusers does not say what its classes can do.
        unet = cast(Any, build_unet(self.spec.diffusion, self.spec.decoder.context_width))
        self.unet = frozen(unet, folder, "unet", self.device)
        self.vae = frozen(cast(Any, build_vae(self.spec.diffusion)), folder, "vae", self.device)
        self.styles: dict[int, Tensor] = {}
        self.tastes: dict[int, Tensor] = {}
        self.liked: dict[int, Tensor] = {}
        rng = random.Random(stream_seed(0, "memory, finishes"))
        for name, records in batches.dataset.train_by_set.items():
            some = rng.sample(records, min(TOLD_BY, len(records)))
            images, hand = apply_look(PLAIN, batches.rgba(some)), hands.index(name)
            self.tastes[hand] = tastes_of(images, tokenizer, reader).mean(0)
            self.styles[hand] = self._typical_style(images)
            self.liked[hand] = self._liked(images[: self.spec.history_size])

    @torch.no_grad()
    def __call__(self, pictures: Tensor, hand: int) -> Tensor:
        """Plain pictures [B, 3, S, S] in 0..1 as ``hand`` would finish them, of the same shape; a row does not depend
        on the others.
        """
        settings, style = self.spec.diffusion, self.spec.tokenizer.style_tokens
        codes = self._codes(pictures)
        codes[:, :style] = self.styles[hand]
        condition = self.decoder(self.tokenizer.quantizer.lookup(codes), codes >= 0)
        seen = encode_latents(self.vae, pictures) if settings.reference_channels else None
        taste = self.tastes[hand].expand(len(pictures), -1) if settings.taste_width else None
        liked = self.liked[hand].expand(len(pictures), -1, -1, -1, -1) if settings.history_pictures else None
        streams = [torch.Generator().manual_seed(stream_seed(0, "finish")) for _ in pictures]
        return draw_pictures(self.unet, self.vae, settings, condition, streams, Beside(seen, taste, liked))

    @torch.no_grad()
    def _liked(self, pictures: Tensor) -> Tensor:
        """A history [1, N, channels, h, w] of plain pictures [N, 3, S, S] that are wholly seen."""
        whole = torch.ones(len(pictures), self.spec.tokenizer.patches, device=self.device)
        latents = encode_latents(self.vae, pictures)
        return seen_picture(latents, whole, latents if self.spec.diffusion.history_plain else None).unsqueeze(0)

    def _codes(self, pictures: Tensor) -> Tensor:
        """Packed codes int64 [B, tokens], -1 as padding."""
        return torch.from_numpy(encode_pictures(self.tokenizer, pictures).astype(np.int64)).to(self.device)

    def _typical_style(self, pictures: Tensor) -> Tensor:
        """Codes int64 [style tokens] of the most typical of a set's pictures."""
        style = self.spec.tokenizer.style_tokens
        codes = encode_pictures(self.tokenizer, pictures)
        codebook = self.tokenizer.quantizer.embedding.weight.detach().float().cpu().numpy()
        typical = codes[most_typical(list(codes), codebook, style)] if style else codes[0]
        return torch.from_numpy(typical[:style].astype(np.int64)).to(self.device)
