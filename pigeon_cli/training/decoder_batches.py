"""What the stage ``decoder`` tells the UNet of a batch: codes, a reference, a taste, and pictures of the history.

At generation the codes are the language model's: mostly what the translator makes of a reference's places, at times the
reference's own or what words brought back. So a picture's codes are of many kinds here, and seldom its own: the UNet is
to take the lines from the reference and the way of drawing from the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.models.diffusion import Beside, seen_picture, visible
from pigeon_cli.models.quantizer import Quantizer
from pigeon_cli.training.code_head import CodeTranslation
from pigeon_cli.training.encoded_groups import EncodedGroups
from pigeon_cli.training.group_histories import GroupHistories, draw_histories, whole_histories
from pigeon_cli.training.looked_groups import GROUP

TRANSLATED_SHARE, SOURCE_SHARE, PLAIN_SHARE = 0.42, 0.18, 0.18
"""Of pictures whose codes are what becomes of the source's in the history's style, the source's own as far as it is
seen, and the plain drawing's, which is what the language model says to words; of the others they are the picture's."""
COOLEST, WARMEST, FAITHFUL_SHARE = 0.25, 0.85, 0.7
"""Temperatures at which they are translated, and the share in which the source's own codes are favoured."""
OWN_STYLE_SHARE, OWN_STYLE_TOO_SHARE = 0.12, 0.7
"""Of pictures with style tokens of their own; of those with codes of their own more."""
REPLACED_SHARE = 0.04
"""Of codes replaced at random, because the language model's codes are not perfect either."""
UNSEEN_SHARE, WHOLE_SHARE = 0.12, 0.43
"""Of references that are seen in their codes alone, as where words brought them back, and that are seen whole; of the
others a random part is hidden."""
NOISY_SHARE, MOST_NOISE = 0.3, 0.35
"""Of references with noise on their latents, and its greatest deviation: lines are not to be copied blindly."""
BLIND_SHARE = 0.35
"""Of pictures with codes of their own that are drawn from codes alone, as where a prompt brought no reference."""
UNTOLD_SHARE = 0.08
"""Of pictures that are drawn without a taste."""
PARTLY_SHARE, MOST_HIDDEN = 0.25, 0.5
"""Of liked pictures of which a part is hidden, and the largest part."""
STRANGE_SHARE, LOST_SHARE = 0.15, 0.1
"""Of groups of which the memory knows no picture, as of a user's own, and of pictures that it might have known."""


@dataclass(frozen=True)
class DecoderBatch:
    """Conditions of B pictures, and the pictures."""

    latents: Tensor
    """Scaled, [B, c, h, w]: what is to be drawn."""
    codes: Tensor
    """int64 [B, tokens], -1 as padding."""
    beside: Beside
    """Reference and taste."""
    liked: Tensor
    """The pictures as histories hold them, [B, channels, h, w]."""
    histories: GroupHistories

    def with_history(self) -> Beside:
        """All that is beside the codes, histories spelled out."""
        seen = self.histories.seen[:, :, None, None, None]
        return Beside(self.beside.reference, self.beside.taste, self.liked[self.histories.rows] * seen)


class DecoderBatches:
    """Makes them of encoded groups."""

    def __init__(self, spec: ModelSpec, quantizer: Quantizer, translation: CodeTranslation | None) -> None:
        """Without a ``translation``, what would be translated stays as it is."""
        self.spec, self.quantizer, self.translation = spec, quantizer, translation
        self.most = min(spec.diffusion.history_pictures or spec.history_size, GROUP - 1)
        self.style_tokens = spec.tokenizer.style_tokens

    def draw(self, groups: EncodedGroups) -> DecoderBatch:
        """Conditions as training has them, from torch's random stream."""
        wanted, device = groups.wanted.float(), groups.wanted.device
        count = len(wanted)
        histories = draw_histories(len(groups), self.most, device)
        partly = (torch.rand(count, 1, device=device) < PARTLY_SHARE) * torch.rand(count, 1, device=device)
        liked = seen_picture(wanted, self._keep(partly * MOST_HIDDEN), self._known(groups))
        keep = self._keep(_hidden_parts(count, device))
        kind = torch.rand(count, 1, device=device)
        own = kind >= TRANSLATED_SHARE + SOURCE_SHARE + PLAIN_SHARE
        told = torch.rand(count, 1, device=device) >= UNTOLD_SHARE
        blind = own & (torch.rand(count, 1, device=device) < BLIND_SHARE)
        noise = (torch.rand(count, 1, 1, 1, device=device) < NOISY_SHARE) * torch.rand(count, 1, 1, 1, device=device)
        sources = groups.sources.float()
        shown = visible(sources + torch.randn_like(sources) * noise * MOST_NOISE, keep) * ~blind[:, :, None, None]
        places = self._places(groups, keep, kind, histories)
        codes = self._replaced(torch.cat([self._styles(groups, own, histories), places], dim=1))
        return DecoderBatch(wanted, codes, self._beside(groups, shown, histories, told), liked, histories)

    def whole(self, groups: EncodedGroups, translated: bool) -> DecoderBatch:
        """Conditions of evaluation: all is seen of references and histories. Codes of places are the likeliest
        translation of the sources', or the plain drawings'; style tokens are those of the history's first picture."""
        wanted, device = groups.wanted.float(), groups.wanted.device
        histories = whole_histories(len(groups), self.most, device)
        all_seen = torch.ones(len(wanted), self.spec.tokenizer.patches, device=device)
        places = (groups.source_codes if translated else groups.plain_codes)[:, self.style_tokens :].long()
        if translated and self.translation is not None:
            places = self.translation.likeliest(places, all_seen, self._mean_styles(groups, histories))
        codes = torch.cat([self._first_styles(groups, histories), places], dim=1)
        beside = self._beside(groups, groups.sources.float(), histories, torch.ones_like(all_seen[:, :1]))
        known = groups.known.float() if self.spec.diffusion.history_plain else None
        return DecoderBatch(wanted, codes, beside, seen_picture(wanted, all_seen, known), histories)

    def _known(self, groups: EncodedGroups) -> Tensor | None:
        """Latents [B, c, h, w] of the plain drawings of liked pictures; of some groups, and some pictures, none."""
        if not self.spec.diffusion.history_plain:
            return None
        strangers = (torch.rand(len(groups), device=groups.known.device) < STRANGE_SHARE).repeat_interleave(GROUP)
        lost = torch.rand(len(groups.known), device=groups.known.device) < LOST_SHARE
        return groups.known.float() * ~(strangers | lost)[:, None, None, None]

    def _keep(self, hidden: Tensor) -> Tensor:
        """Float [B, places], 0 in about a part ``hidden`` [B, 1] of them."""
        places = self.spec.tokenizer.patches
        return (torch.rand(len(hidden), places, device=hidden.device) >= hidden).float()

    def _places(self, groups: EncodedGroups, keep: Tensor, kind: Tensor, histories: GroupHistories) -> Tensor:
        """int64 [B, places]; what is hidden of a source is translated, and one that is hidden altogether may have come
        from words."""
        mine, source, plain = (
            codes[:, self.style_tokens :].long()
            for codes in (groups.wanted_codes, groups.source_codes, groups.plain_codes)
        )
        said = self._translated(source, keep, self._mean_styles(groups, histories))
        unseen = (keep == 0).all(1, keepdim=True)
        places = torch.where(kind < TRANSLATED_SHARE + SOURCE_SHARE + PLAIN_SHARE, plain, mine)
        seen = torch.where((keep > 0) | unseen, source, said)
        places = torch.where(kind < TRANSLATED_SHARE + SOURCE_SHARE, seen, places)
        places = torch.where(kind < TRANSLATED_SHARE, said, places)
        return torch.where(groups.own[:, None], mine, places)

    def _translated(self, codes: Tensor, keep: Tensor, style: Tensor) -> Tensor:
        if self.translation is None:
            return codes
        temperature = COOLEST + (WARMEST - COOLEST) * torch.rand(len(codes), 1, 1, device=codes.device)
        faithful = torch.rand(len(codes), 1, device=codes.device) < FAITHFUL_SHARE
        return self.translation.draw(codes, keep, style, temperature, faithful)

    def _mean_styles(self, groups: EncodedGroups, histories: GroupHistories) -> Tensor:
        """[B, style tokens, code_width]."""
        return histories.mean(self.quantizer.lookup(groups.wanted_codes[:, : self.style_tokens].long()))

    def _styles(self, groups: EncodedGroups, own_codes: Tensor, histories: GroupHistories) -> Tensor:
        """Style codes int64 [B, style tokens], of another picture of the history or the picture's own."""
        own, too = torch.rand(2, len(own_codes), 1, device=own_codes.device)
        own_style = (own < OWN_STYLE_SHARE) | (own_codes & (too < OWN_STYLE_TOO_SHARE))
        mine = groups.wanted_codes[:, : self.style_tokens].long()
        return torch.where(own_style, mine, self._first_styles(groups, histories))

    def _first_styles(self, groups: EncodedGroups, histories: GroupHistories) -> Tensor:
        return groups.wanted_codes[histories.rows[:, 0], : self.style_tokens].long()

    def _replaced(self, codes: Tensor) -> Tensor:
        swapped = (torch.rand(codes.shape, device=codes.device) < REPLACED_SHARE) & (codes >= 0)
        swapped[:, : self.style_tokens] = False
        return torch.where(swapped, torch.randint_like(codes, self.spec.tokenizer.patch_codes), codes)

    def _beside(self, groups: EncodedGroups, shown: Tensor, histories: GroupHistories, told: Tensor) -> Beside:
        diffusion = self.spec.diffusion
        taste = histories.mean(groups.tastes) * told if diffusion.taste_width else None
        return Beside(shown if diffusion.reference_channels else None, taste)


def _hidden_parts(count: int, device: torch.device) -> Tensor:
    """[count, 1]: how much is hidden of references."""
    kind, part = torch.rand(2, count, 1, device=device)
    return torch.where(kind < UNSEEN_SHARE, 1.0, part.masked_fill(kind >= 1 - WHOLE_SHARE, 0.0))
