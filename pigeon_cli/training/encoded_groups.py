"""Groups of pictures as the stage ``decoder`` learns from them: latents, codes and tastes, read once for many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pigeon_cli.models.diffusion import encode_latents
from pigeon_cli.models.taste import TasteReader
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.code_cache import encode_pictures
from pigeon_cli.training.frozen_reader import tastes_of
from pigeon_cli.training.looked_groups import GROUP, LookedGroup
from pigeon_cli.training.stored_drawings import StoredDrawings


@dataclass(frozen=True)
class EncodedGroups:
    """``LookedGroup`` encoded, [groups * GROUP, ...]; codes are packed, int16 with -1 as padding."""

    wanted: Tensor
    """Scaled latents [n, c, h, w], float16 like those of the sources."""
    sources: Tensor
    wanted_codes: Tensor
    source_codes: Tensor
    plain_codes: Tensor
    tastes: Tensor
    """Float [n, taste width] of each picture by itself; of width 0 where the model has no taste."""
    own: Tensor
    """Bool [n]."""
    known: Tensor
    """float16 [n, c, h, w]: of the plain drawings that the memory takes the wanted pictures for, zero where of none."""

    def __len__(self) -> int:
        return len(self.own) // GROUP

    def groups(self, numbers: Sequence[int]) -> EncodedGroups:
        """Some of them, by number."""
        starts = torch.tensor(numbers, device=self.own.device).unsqueeze(1) * GROUP
        rows = (starts + torch.arange(GROUP, device=self.own.device)).flatten()
        return EncodedGroups(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class GroupEncoder:
    """The frozen parts that read pictures."""

    vae: AutoencoderKL
    tokenizer: VisualTokenizer
    taste: TasteReader | None
    stored: StoredDrawings | None = None
    """``None`` where nothing is to be asked of the memory."""

    @torch.no_grad()
    def encode(self, groups: LookedGroup) -> EncodedGroups:
        """``groups`` as they are learned from."""
        wanted, sources = self._latents(groups.wanted), self._latents(groups.sources)
        own, source, plain = (self._codes(images) for images in (groups.wanted, groups.sources, groups.plain))
        known = torch.zeros_like(wanted) if self.stored is None else self.stored.known(groups.wanted).half()
        return EncodedGroups(wanted, sources, own, source, plain, self._tastes(groups.wanted), groups.own, known)

    def _latents(self, images: Tensor) -> Tensor:
        # What is to be drawn must not carry the rounding of training's bf16.
        with torch.autocast(images.device.type, enabled=False):
            return encode_latents(self.vae, images).half()

    def _codes(self, images: Tensor) -> Tensor:
        return torch.from_numpy(encode_pictures(self.tokenizer, images)).to(images.device)

    def _tastes(self, images: Tensor) -> Tensor:
        if self.taste is None:
            return images.new_zeros(len(images), 0)
        with torch.autocast(images.device.type, enabled=False):
            return tastes_of(images, self.tokenizer, self.taste)


def joined(parts: Sequence[EncodedGroups]) -> EncodedGroups:
    """All ``parts``, one after another."""
    # Autocast on a CPU joins no float16.
    with torch.autocast(parts[0].own.device.type, enabled=False):
        return EncodedGroups(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(parts[0])))
