"""Mask generator: which history and reference tokens matter, learned through the keep decision itself.

Method: DESIGN.md section 2 ("Mask generator") and "Making the mask learn".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.core.configs import MaskGeneratorConfig

PAD, HISTORY, REFERENCE = 0, 1, 2
"""Rows of the type embedding."""

_IMAGE_WEIGHT = 2.0
"""Where the weight of an image's agreement begins; it is learned."""

KeepCount = Callable[[int, str], int]
Alphas = float | Sequence[float] | Tensor


class SinusoidTable(nn.Module):
    """Fixed sine and cosine table ``pe`` [positions, width], interleaved; saved with the weights."""

    pe: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        place = torch.arange(positions, dtype=torch.float32).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
        table = torch.zeros(positions, width)
        table[:, 0::2] = torch.sin(place * rate)
        table[:, 1::2] = torch.cos(place * rate)
        self.register_buffer("pe", table)

    def forward(self, positions: Tensor) -> Tensor:
        """Rows for ``positions`` [...] (int64); positions beyond the table take its last row."""
        return self.pe[positions.clamp(max=self.pe.shape[0] - 1)]


class MaskGenerator(nn.Module):
    """Scores every token by the cosine between its own embedding and a context vector.

    Parameter names are those of the released file, which is why one LayerNorm serves input and output.
    """

    def __init__(self, config: MaskGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feed_forward, config.dropout, activation="relu", batch_first=True
        )
        self.position_embedding = SinusoidTable(config.positions, config.width)
        self.type_embedding = nn.Embedding(3, config.width)
        # Nested tensors would drop padded columns and so change the output's length.
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        if config.image_layers > 0:
            self.image_encoder = nn.TransformerEncoder(layer, config.image_layers, enable_nested_tensor=False)
            self.image_head = nn.Linear(config.width, config.width)
            self.image_weight = nn.Parameter(torch.tensor(_IMAGE_WEIGHT))
        self.LayerNorm = nn.LayerNorm(config.width)
        self.dense = nn.Linear(config.width, config.width)
        if config.image_slots > 0:
            self.image_embedding = nn.Embedding(config.image_slots, config.width)
        if config.learned_temperature is not None:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(config.learned_temperature)))

    @property
    def temperature(self) -> Tensor | float:
        """Divisor of the scores: a learned scalar, or 1 for released weights."""
        return 1.0 if self.config.learned_temperature is None else self.log_temperature.exp()

    def hidden(self, embeddings: Tensor, positions: Tensor, types: Tensor, images: Tensor | None = None) -> Tensor:
        """Context vectors h in (-1, 1), [B, L, W]; columns of type ``PAD`` are not attended to."""
        return self._joined(self.within_images(embeddings, positions, types, images), types)

    def within_images(
        self, embeddings: Tensor, positions: Tensor, types: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """What every token knows of its own image, [B, L, W]; the entrance itself without ``image_layers``."""
        entrance = self.entrance(embeddings, positions, types, images)
        if self.config.image_layers == 0 or images is None:
            return entrance
        of = torch.where(types == PAD, -1, images)
        foreign = of.unsqueeze(1) != of.unsqueeze(2)
        within: Tensor = self.image_encoder(entrance, mask=foreign.repeat_interleave(self.config.heads, dim=0))
        return within

    def image_vectors(self, within: Tensor, types: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, I, W] of how each history image is drawn, by its number, and which there are, bool [B, I].

        ``within`` is what :meth:`within_images` returns.
        """
        counted = (types == HISTORY).to(within.dtype)
        member = functional.one_hot(images).to(within.dtype) * counted.unsqueeze(-1)
        sizes = member.sum(1)
        means = member.transpose(1, 2) @ within / sizes.clamp_min(1).unsqueeze(-1)
        return functional.normalize(self.image_head(means).float(), dim=-1), sizes > 0

    def _joined(self, within: Tensor, types: Tensor) -> Tensor:
        encoded = self.encoder(within, src_key_padding_mask=types == PAD)
        return torch.tanh(self.dense(self.LayerNorm(encoded)))

    def entrance(self, embeddings: Tensor, positions: Tensor, types: Tensor, images: Tensor | None = None) -> Tensor:
        """What enters the encoder, [B, L, W]: table rows ``embeddings`` [B, L, W] plus where and what each token is.

        ``positions``, ``types`` and ``images`` are int64 [B, L].
        """
        if self.config.level_embeddings:
            embeddings = functional.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5
        summed = embeddings + self.position_embedding(positions) + self.type_embedding(types)
        if self.config.image_slots > 0 and images is not None:
            summed = summed + self.image_embedding(images.clamp(max=self.config.image_slots - 1))
        return self.LayerNorm(summed)

    def forward(self, embeddings: Tensor, positions: Tensor, types: Tensor, images: Tensor | None = None) -> Tensor:
        """Cosine scores in [-1, 1], [B, L]; arguments as in :meth:`hidden`.

        With ``image_layers`` the agreement of a token's image with the others of the history comes on top.
        """
        within = self.within_images(embeddings, positions, types, images)
        # Scores of a few bits would tie, and the order of ties decides what is kept.
        own = functional.cosine_similarity(embeddings.float(), self._joined(within, types).float(), dim=-1)
        if self.config.image_layers == 0 or images is None:
            return own
        agreement = image_agreement(*self.image_vectors(within, types, images))
        return own + self.image_weight * agreement.gather(1, images)


@dataclass(frozen=True)
class MaskDecision:
    """What to keep, [B, L] each."""

    keep: Tensor
    """1 keeps, 0 drops, exactly, with the gradient of ``soft``; 1 wherever nothing was scored."""
    probability: Tensor
    """Soft keep value: softmax over the group, or the surrogate sigmoid; 0 wherever nothing was scored."""
    margin: Tensor
    """Perturbed score minus the smallest kept one, over the surrogate's width; logits for a supervised loss."""
    scores: Tensor


def keep_count(count: int, alpha: str) -> int:
    """``max(1, floor(count * (1 - alpha)))`` on the decimal text of ``alpha``, so 10 tokens at .8 keep 2."""
    kept = (count * (1 - Decimal(alpha))).to_integral_value(rounding=ROUND_FLOOR)
    return min(count, max(1, int(kept)))


def decide(
    scores: Tensor,
    groups: Tensor,
    history_alpha: Alphas,
    reference_alpha: Alphas,
    *,
    invert_reference: bool = False,
    temperature: Tensor | float = 1.0,
    surrogate_tau: float | None = None,
    noise: Tensor | None = None,
    count: KeepCount = keep_count,
) -> MaskDecision:
    """Keep the best tokens of each group: all history tokens of a request together, and its reference tokens.

    ``scores`` [B, L]; ``groups`` int64 [B, L] holds HISTORY or REFERENCE for scored tokens, PAD for everything that
    is not up for decision. The alphas are the shares to drop, one number or one per request. ``invert_reference``
    hides what agrees with the history (training). ``noise`` [B, L] are Gumbel draws; ``None`` decides plainly.
    ``surrogate_tau`` ``None`` is the published straight-through softmax over log p + noise; otherwise the order is
    score / temperature + noise and the gradient that of a sigmoid of width ``surrogate_tau`` around the threshold.
    """
    batch = scores.shape[0]
    keep = torch.ones_like(scores)
    probability, margin = torch.zeros_like(scores), torch.zeros_like(scores)
    for kind, alpha, invert in (
        (HISTORY, history_alpha, False),
        (REFERENCE, reference_alpha, invert_reference),
    ):
        member = groups == kind
        sizes = member.sum(1).tolist()
        counts = [count(size, text) if size else 0 for size, text in zip(sizes, _texts(alpha, batch), strict=True)]
        kept = torch.tensor(counts, device=scores.device)
        order = _order(scores / temperature, member, invert, noise, surrogate_tau is not None)
        hard, threshold = _select(order.detach(), member, kept)
        soft, logits = _soften(order, member, threshold, surrogate_tau)
        keep = torch.where(member, hard + (soft - soft.detach()), keep)
        probability = torch.where(member, soft, probability)
        margin = torch.where(member, logits, margin)
    return MaskDecision(keep, probability, margin, scores)


def image_agreement(vectors: Tensor, present: Tensor) -> Tensor:
    """Mean cosine of each image's unit vector [B, I, W] with the other images that are ``present``, [B, I]; else 0."""
    others = (
        present.unsqueeze(1)
        & present.unsqueeze(2)
        & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    )
    cosines = (vectors @ vectors.transpose(1, 2)) * others
    return cosines.sum(2) / others.sum(2).clamp_min(1)


def gumbel_noise(lengths: Sequence[int], columns: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Gumbel draws [B, columns], one generator per request, so that neither batch nor padding changes them."""
    noise = torch.zeros(len(lengths), columns)
    for row, (length, generator) in enumerate(zip(lengths, generators, strict=True)):
        uniform = torch.rand(length, generator=generator, dtype=torch.float64).clamp_min(1e-12)
        noise[row, :length] = (-torch.log(-torch.log(uniform))).float()
    return noise


def _texts(alpha: Alphas, batch: int) -> list[str]:
    """Shortest decimal text of each request's alpha in its own precision (0.8 stays "0.8" in float32)."""
    values = alpha.detach().cpu().numpy() if isinstance(alpha, Tensor) else alpha
    if isinstance(values, int | float):
        return [str(values)] * batch
    texts = [str(value) for value in values]
    if len(texts) != batch:
        raise ValueError(f"{len(texts)} alphas for {batch} requests")
    return texts


def _order(tempered: Tensor, member: Tensor, invert: bool, noise: Tensor | None, plain: bool) -> Tensor:
    """Values whose largest are kept, [B, L]; finite everywhere."""
    if plain:
        # log(1 - p) over hundreds of tokens is flat to 1/n: the mirrored score keeps its order and a usable slope.
        values = -tempered if invert else tempered
    else:
        logits = tempered.masked_fill(~member, torch.finfo(tempered.dtype).min)
        values = torch.log_softmax(logits, dim=1)
        if invert:
            values = torch.log1p(-values.exp().clamp(max=1 - 1e-6))
        values = torch.where(member, values, torch.zeros_like(values))
    return values if noise is None else values + noise


def _select(order: Tensor, member: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Hard decision [B, L] (the ``kept`` largest members, earlier ones first in ties) and the smallest kept value."""
    ranked = order.masked_fill(~member, float("-inf"))
    places = ranked.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(places).scatter_(
        1, places, torch.arange(order.shape[1], device=order.device).expand_as(places)
    )
    hard = (ranks < kept.unsqueeze(1)) & member
    smallest = order.masked_fill(~hard, float("inf")).amin(dim=1, keepdim=True)
    return hard.to(order.dtype), torch.where(smallest.isinf(), torch.zeros_like(smallest), smallest)


def _soften(order: Tensor, member: Tensor, threshold: Tensor, tau: float | None) -> tuple[Tensor, Tensor]:
    """Soft keep values in (0, 1) and their logits, [B, L] each."""
    if tau is None:
        soft = torch.softmax(order.masked_fill(~member, torch.finfo(order.dtype).min), dim=1)
        return soft, order - threshold
    with torch.no_grad():
        slope = torch.sigmoid((order - threshold) / tau)
        slope = slope * (1 - slope) * member
        slope = slope / slope.sum(1, keepdim=True).clamp_min(1e-12)
    # The number kept is fixed, so the threshold follows the scores around it: only differences get a gradient.
    moving = threshold + (slope * (order - order.detach())).sum(1, keepdim=True)
    logits = (order - moving) / tau
    return torch.sigmoid(logits), logits
