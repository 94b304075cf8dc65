"""Recorded numbers of the published program, and the rule that fills weights without any file.

Source: WEIGHT_RULE.md of the parity material. Every weight and noise array is a function of
(seed, component, key, shape); the seed stands in ``<size>_config.json`` of the goldens folder.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pigeon_cli.core.vocabulary import Vocabulary

Array = NDArray[Any]
DATA = Path(__file__).parent / "data"
IMAGES = DATA / "images"
TOKENIZER = DATA / "tokenizer" / "language_model"
IMAGE_FILES = (
    "img0_rgb_300x200.png",
    "img1_rgba_257x331.png",
    "img2_gray_128x96.png",
    "img3_palette_90x160.png",
    "img4_la_64x64.png",
    "img5_rgb_640x480.png",
    "img6_bilevel_200x200.png",
    "img7_rgb_224x224.png",
)
UNIT_DEVIATION = ("embed_tokens.weight", "type_embedding.weight")
HALF_DEVIATION = ("pos_embed", "query_embed", "cls_token", "positional_embedding")
TOLERANCE = 1e-4
"""Largest allowed difference, relative to the largest expected magnitude."""
MINI, TRUE = "mini", "true"
"""Sizes that were recorded: everything small; and the published widths, one or two layers deep."""
MINI_ONLY = pytest.mark.parametrize("goldens", [MINI], indirect=True, scope="session")
"""Mark of a test whose recording has no size, or was made in mini alone."""


def generator(seed: int, name: str) -> np.random.Generator:
    """The PCG64 stream of one named array."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}/{name}".encode())))


def golden_weight(seed: int, name: str, shape: Sequence[int]) -> Array:
    """Float32 weight called ``<component>/<published key>``."""
    shape = tuple(int(size) for size in shape)
    # In place throughout: at true width the two tables of the language model take 0.8 GB each.
    values = generator(seed, name).standard_normal(size=shape, dtype=np.float32)
    if name.endswith("quantize.embedding.weight"):
        norms = np.sqrt((values.astype(np.float64) ** 2).sum(1, keepdims=True))
        return np.asarray((values / norms).astype(np.float32))
    if name.endswith(UNIT_DEVIATION):
        return values
    if name.endswith(HALF_DEVIATION):
        values *= np.float32(0.5)
    elif values.ndim >= 2:
        values *= np.float32(1.0 / np.sqrt(np.prod(shape[1:], dtype=np.float64)))
    elif name.endswith("weight"):
        values = np.float32(1) + np.float32(0.1) * values
    else:
        values *= np.float32(0.02)
    return values


def exp_noise(seed: int, tag: str, shape: int | Sequence[int]) -> Array:
    """Float32 Exp(1) draws of ``noise/<tag>``; Gumbel noise is minus their logarithm."""
    return np.asarray((-np.log1p(-generator(seed, "noise/" + tag).random(size=shape))).astype(np.float32))


def normal_noise(seed: int, tag: str, shape: Sequence[int]) -> Array:
    """Float32 standard normal draws of ``noise/<tag>``."""
    return generator(seed, "noise/" + tag).standard_normal(size=tuple(shape), dtype=np.float32)


Rename = Callable[[str], str]


def fill(module: nn.Module, component: str, seed: int, rename: Rename | None = None) -> None:
    """Fill every parameter of ``module`` in place from the weight rule.

    ``rename`` maps our parameter name to the published key (without the component); buffers keep their value.
    Two parameters that claim one published key raise, so that a wrong map cannot pass.
    """
    claimed: dict[str, str] = {}
    for name, parameter in module.named_parameters():
        key = rename(name) if rename else name
        if key in claimed:
            raise KeyError(f"{name} and {claimed[key]} both map to {component}/{key}")
        claimed[key] = name
        values = golden_weight(seed, f"{component}/{key}", parameter.shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))


class GoldenFile:
    """Arrays of one golden file; a missing array skips the test by name instead of failing it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        if not path.is_file():
            pytest.skip(f"golden file {path.name} is not in {path.parent}")
        with np.load(path, allow_pickle=False) as archive:
            self._arrays: dict[str, Array] = {key: archive[key] for key in archive.files}

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> Array:
        if key not in self._arrays:
            pytest.skip(f"golden {self.path.name} has no array {key}")
        return self._arrays[key]

    def keys(self) -> list[str]:
        """Names of the arrays, companions of sampled arrays included."""
        return list(self._arrays)

    def tensor(self, key: str) -> torch.Tensor:
        """One array as a torch tensor; integers become int64."""
        values = torch.from_numpy(np.array(self[key]))
        return values.long() if not values.is_floating_point() and values.dtype != torch.bool else values

    def check_large(self, actual: torch.Tensor | Array, name: str, rtol: float = TOLERANCE) -> None:
        """Compare with array ``name``, whether it was recorded whole or as samples with four projections.

        Samples and statistics are compared relative to the recorded largest magnitude, projections
        relative to the recorded deviation. Projections reach every element.
        """
        expected = self[name]
        values = as_array(actual)
        if f"{name}__stride" not in self:
            assert_close_absmax(values, expected, rtol)
            return
        assert values.shape == tuple(self[f"{name}__shape"]), f"{name}: shape {values.shape}"
        flat = values.reshape(-1)
        mean, deviation, absmax = (float(number) for number in self[f"{name}__stat"])
        sample = flat[:: int(self[f"{name}__stride"])][: len(expected)]
        assert np.abs(sample - expected).max() <= rtol * absmax, f"{name}: samples differ"
        double = flat.astype(np.float64)
        found = np.array([double.mean(), double.std(), np.abs(double).max()])
        assert np.abs(found - [mean, deviation, absmax]).max() <= rtol * absmax, f"{name}: statistics {found}"
        recorded = self[f"{name}__proj"]
        # Whether the projections follow the folder's seed or stay at 0 is not written down; both are the rule's.
        difference = min(float(np.abs(project(flat, choice) - recorded).max()) for choice in {self.seed, 0})
        assert difference <= rtol * max(deviation, float(np.abs(recorded).max())), f"{name}: projections differ"


def project(flat: Array, seed: int) -> Array:
    """Four random projections ``P @ flat / sqrt(n)`` that see every element."""
    double = flat.astype(np.float64)
    rows = (generator(seed, f"proj/{index}").standard_normal(size=flat.size, dtype=np.float32) for index in range(4))
    return np.array([np.dot(row.astype(np.float64), double) for row in rows]) / np.sqrt(flat.size)


class Goldens:
    """What was recorded at one size, from ``PIGEON_PARITY`` in the environment or the copy beside the tests."""

    def __init__(self, size_name: str) -> None:
        named = os.environ.get("PIGEON_PARITY")
        self.folder = Path(named) if named else DATA / "goldens"
        self.size_name = size_name
        self.config: dict[str, Any] = self.load_json("config")
        self.seed = int(self.config["seed"])

    @property
    def size(self) -> dict[str, Any]:
        """Dimensions of the recorded model parts."""
        return dict(self.config["size"])

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of the recorded model: the published ones, with fewer codes in mini."""
        return Vocabulary(text_size=32000, code_count=self.size["tok"]["n_code"])

    def load(self, name: str) -> GoldenFile:
        """Arrays of ``<size>_<name>.npz``; skips the test when the file is not there."""
        return GoldenFile(self.folder / f"{self.size_name}_{name}.npz", self.seed)

    def load_shared(self, name: str) -> GoldenFile:
        """Arrays of ``<name>.npz``, the same for all sizes; skips the test when the file is not there."""
        return GoldenFile(self.folder / f"{name}.npz", self.seed)

    def load_json(self, name: str) -> Any:
        """Content of ``<size>_<name>.json``; skips the test when the file is not there."""
        return self.load_shared_json(f"{self.size_name}_{name}")

    def load_shared_json(self, name: str) -> Any:
        """Content of ``<name>.json``; skips the test when the file is not there."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"golden file {path.name} is not in {self.folder}")
        return json.loads(path.read_text(encoding="utf-8"))


def as_array(values: torch.Tensor | Array) -> Array:
    """Numpy view of a tensor or array, detached."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def assert_close_absmax(actual: torch.Tensor | Array, expected: torch.Tensor | Array, rtol: float = TOLERANCE) -> None:
    """The largest difference is at most ``rtol`` times the largest expected magnitude; shapes are equal."""
    found, wanted = as_array(actual).astype(np.float64), as_array(expected).astype(np.float64)
    assert found.shape == wanted.shape, f"shape {found.shape}, expected {wanted.shape}"
    if wanted.size == 0:
        return
    assert np.isfinite(found).all(), "not finite"
    difference = float(np.abs(found - wanted).max())
    limit = rtol * max(float(np.abs(wanted).max()), 1e-30)
    assert difference <= limit, f"largest difference {difference:.3e}, allowed {limit:.3e}"
