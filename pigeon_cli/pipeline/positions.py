"""Where the tokens of a prompt stand: one after another (released weights), or by their place in the picture (mini).

A small model finds what stands at its own position much sooner than what stands at a distance. By place, the n-th
code of every picture of a prompt, and the n-th slot of the reference, stand within a few positions of each other, so
that "what did the others do here" is the nearest thing to look at instead of something to be counted out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.pipeline.prompt import DROPPED, REFERENCE_SLOT

TEXT_ROOM = 48
"""Positions before the pictures' first place; words end there, the first of a longer text share position 0."""


def token_positions(ids: Tensor, attention: Tensor, spec: ModelSpec) -> Tensor:
    """Positions int64 [B, L] of whole prompts ``ids`` [B, L], by what ``spec.place_stride`` says."""
    if spec.place_stride == 0:
        return (attention.cumsum(1) - 1).clamp(min=0)
    vocabulary, stride = spec.vocabulary, spec.place_stride
    start, end, slot = ids == vocabulary.image_start, ids == vocabulary.image_end, ids == REFERENCE_SLOT
    of_picture = start | end | slot | (ids == DROPPED) | (ids >= vocabulary.first_code)
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    # A code is predicted from the place before its own; its slot stands there too.
    place = columns - _last(columns, start)
    number_of_slot = (columns - _last(columns, slot & ~slot.roll(1, 1))) * slot
    place = torch.where(slot, _slot_places(spec).to(ids.device)[number_of_slot], place)
    number = (end.long().cumsum(1) - end.long()).clamp(max=stride - 1)
    text = ~of_picture & attention.bool()
    left = _last(columns, text.flip(1) & ~text.flip(1).roll(1, 1))
    before = (columns - left).flip(1) + 1
    pictured = TEXT_ROOM + stride * place + number
    return torch.where(of_picture, pictured, (TEXT_ROOM - before).clamp(min=0)) * attention


def position_step(spec: ModelSpec) -> int:
    """Distance between the positions of two codes of an answer."""
    return spec.place_stride or 1


def _slot_places(spec: ModelSpec) -> Tensor:
    """The first place of the square block that each slot stands for, int64 [slots]; style tokens come before all."""
    side, coarse = spec.tokenizer.grid, round(spec.reference_slots**0.5)
    corners = torch.arange(coarse) * (side // coarse)
    return spec.tokenizer.style_tokens + (corners.unsqueeze(1) * side + corners).flatten()


def _last(columns: Tensor, marks: Tensor) -> Tensor:
    """Column of the last mark at or before each column of [B, L]; 0 before the first."""
    return (columns * marks).cummax(1).values
