"""Keys and values of many rows that continue from few: what the rows share is held once.

Source: DESIGN.md section 2, "The shape of a fast run". A row of the 7B model holds half a megabyte a token, so beams
and dial positions that each had the prompt to themselves would need several gigabytes more than the prompt does.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer

CACHE_ARGUMENT = "cache" if "cache" in signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""What this version of transformers calls it; the newer ones warn about the older name."""


class FannedLayer(DynamicLayer):
    """One layer's shared columns [P, heads, L, width], of which each row reads one, and each row's own columns since.

    ``keys`` and ``values`` of the base class are the rows' own; attention gets both parts side by side, made anew for
    one layer at a time.
    """

    def __init__(self, shared: tuple[Tensor, Tensor], rows: Tensor, own: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.shared, self.rows = shared, rows
        if own is not None:
            self.lazy_initialization(*own)
            self.keys, self.values = own

    @property
    def own(self) -> tuple[Tensor, Tensor] | None:
        """Each row's own columns; ``None`` before the first."""
        return None if self.keys is None or self.values is None else (self.keys, self.values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take in new columns of each row; returns all columns of all rows, [rows, heads, L, width] each."""
        super().update(key_states, value_states, *args, **kwargs)
        return self.whole()

    def whole(self) -> tuple[Tensor, Tensor]:
        """All columns of all rows."""
        keys, values = (self._spread(part) for part in self.shared)
        if (own := self.own) is None:
            return keys, values
        return torch.cat([keys, own[0]], dim=2), torch.cat([values, own[1]], dim=2)

    def get_seq_length(self) -> int:
        """Columns of a row."""
        return int(self.shared[0].shape[2]) + int(super().get_seq_length())

    def chosen(self, rows: Tensor) -> FannedLayer:
        """The layer with its rows chosen, repeated or reordered; what is shared is not copied."""
        own = None if self.own is None else (self.own[0][rows], self.own[1][rows])
        return FannedLayer(self.shared, self.rows[rows], own)

    def _spread(self, part: Tensor) -> Tensor:
        return part.expand(len(self.rows), -1, -1, -1) if len(part) == 1 else part[self.rows]


class RoomyLayer(DynamicLayer):
    """One layer's columns, with room behind them: one that is drawn is written there, and no other copied for it.

    ``parts`` are keys and values [B, heads, L, width] of rows that are joined to one batch; before the columns of
    shorter ones there are zeros.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]], room: int) -> None:
        super().__init__()
        self.lazy_initialization(*parts[0])
        length = max(int(keys.shape[2]) for keys, _ in parts)
        self._buffers = tuple(_joined_columns([part[side] for part in parts], length, room) for side in (0, 1))
        self._show(length)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take in new columns of each row; returns all columns of all rows."""
        start = self.get_seq_length()
        end = start + int(key_states.shape[2])
        if end > self._buffers[0].shape[2]:
            return super().update(key_states, value_states, *args, **kwargs)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._show(end)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _joined_columns(parts: Sequence[Tensor], length: int, room: int) -> Tensor:
    rows, (_, heads, _, width) = sum(map(len, parts)), parts[0].shape
    buffer = parts[0].new_zeros(rows, heads, length + room, width)
    for part, place in zip(parts, buffer.split([*map(len, parts)]), strict=True):
        place[:, :, length - part.shape[2] : length] = part
    return buffer


def joined(first: DynamicCache, second: DynamicCache, room: int) -> DynamicCache:
    """The rows of both, with room for so many more columns; see :class:`RoomyLayer`."""
    cache = DynamicCache()
    cache.layers.extend(RoomyLayer(pair, room) for pair in zip(layers_of(first), layers_of(second), strict=True))
    return cache


def choose_rows(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """A cache with rows chosen, repeated or reordered by ``rows`` (int64); the old one stays as it is."""
    chosen = DynamicCache()
    for number, layer in enumerate(_stored(cache)):
        if isinstance(layer, FannedLayer):
            chosen.layers.append(layer.chosen(rows))
        elif len(rows) > len(layer.keys):
            chosen.layers.append(FannedLayer((layer.keys, layer.values), rows))
        else:
            # Layer by layer, so that at most one is held twice over.
            chosen.update(layer.keys[rows], layer.values[rows], number)
    return chosen


def continued(cache: DynamicCache) -> DynamicCache:
    """A cache that can grow while ``cache`` stays as it is; growing makes new tensors, so none is copied here."""
    copy = DynamicCache()
    for layer in _stored(cache):
        if isinstance(layer, FannedLayer):
            copy.layers.append(FannedLayer(layer.shared, layer.rows, layer.own))
        else:
            twin = DynamicLayer()
            twin.lazy_initialization(layer.keys, layer.values)
            twin.keys, twin.values = layer.keys, layer.values
            copy.layers.append(twin)
    return copy


def layers_of(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, [B, heads, L, width] each."""
    return [layer.whole() if isinstance(layer, FannedLayer) else (layer.keys, layer.values) for layer in _stored(cache)]


def _stored(cache: DynamicCache) -> list[Any]:
    layers: list[Any] = cache.layers
    return layers
