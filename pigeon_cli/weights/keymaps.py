"""Where each tensor of the published files goes in this project's modules: names only, no tensors.

Source: parity NOTES section 7 (files) and the manifests (keys). The files themselves were not seen; what is known of
them are the keys that the published program needs and, from the hub, their sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A tensor of ours: ``key`` of the state dict of ``part`` (a name of the parts of a model folder)."""

    part: str
    key: str


@dataclass(frozen=True)
class Ignored:
    """A published tensor that is left out, and why."""

    reason: str


@dataclass(frozen=True)
class KeyMap:
    """One published file: what it may be called and where its keys go."""

    part: str
    files: tuple[str, ...]
    """Paths without ending below the model or checkpoint folder; shards and endings are found by the reader."""
    prefixes: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    """Published prefix to ours; no prefix is the start of another."""
    ignored: Mapping[str, str] = field(default_factory=dict)
    """Pattern of whole keys to the reason why they are left out."""
    former_names: Mapping[str, str] = field(default_factory=dict)
    """Pattern to replacement of names that older versions of the writing library gave; applied first."""

    def place(self, published: str) -> Target | Ignored | None:
        """Where a published key goes; ``None`` when this file should not hold such a key."""
        for pattern, reason in self.ignored.items():
            if re.fullmatch(pattern, published):
                return Ignored(reason)
        for pattern, replacement in self.former_names.items():
            published = re.sub(pattern, replacement, published)
        for theirs, ours in self.prefixes.items():
            if published.startswith(theirs):
                return Target(self.part, ours + published.removeprefix(theirs))
        return None

    def published(self, key: str) -> str | None:
        """The published name of our ``key``; ``None`` when it comes from another file."""
        for theirs, ours in self.prefixes.items():
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        return None


@dataclass(frozen=True)
class _Stretch(KeyMap):
    """The keys of ours that begin with ``start``, without it."""

    start: str = ""

    def place(self, published: str) -> Target | Ignored | None:
        found = super().place(published)
        if not isinstance(found, Target):
            return found
        if not found.key.startswith(self.start):
            return Ignored("belongs to another piece of the part")
        return Target(found.part, found.key.removeprefix(self.start))

    def published(self, key: str) -> str | None:
        return super().published(self.start + key)


def starting(keymap: KeyMap, start: str) -> KeyMap:
    """``keymap`` for those keys of ours alone that begin with ``start``, which is taken off."""
    if not start:
        return keymap
    return _Stretch(keymap.part, keymap.files, keymap.prefixes, keymap.ignored, keymap.former_names, start)


_NOT_ON_THE_PATH = "the tokenizer reads the raw output of the last block (NOTES 2.2)"

ENCODER = KeyMap(
    "tokenizer",
    ("visual_tokenizer/eva_vitg_psz14",),
    {name: f"encoder.{name}" for name in ("cls_token", "pos_embed", "patch_embed.", "blocks.")},
    {r"norm\.(weight|bias)": _NOT_ON_THE_PATH, r"head\.(weight|bias)": _NOT_ON_THE_PATH},
)
SELECTOR_MERGER_QUANTIZER = KeyMap(
    "tokenizer",
    ("visual_tokenizer/tokenizer_encoder",),
    {
        "token_predictor.": "selector.",
        "causal_encoder.": "merger.",
        "encode_task_layer.": "task_layer.",
        "quantize.": "quantizer.",
    },
    {
        r"encoder\..+": "the frozen encoder is read from eva_vitg_psz14",
        r"vit_proj\..+": "projects features for image understanding, which is not offered",
        r"quantize\.(embedding\.)?(cluster_size|embed_avg|initted)": "training statistics of the codebook",
    },
)
DECODER = KeyMap("decoder", ("visual_tokenizer/highres_tokenizer_decoder",))
LANGUAGE = KeyMap(
    "language",
    ("language_model/model", "language_model/pytorch_model"),
    ignored={
        r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "computed from the configuration; saved by older "
        "versions of transformers"
    },
)
UNET = KeyMap("unet", ("highres_pixel_decoding/unet/diffusion_pytorch_model",))
VAE = KeyMap(
    "vae",
    ("highres_pixel_decoding/vae/diffusion_pytorch_model",),
    former_names={
        rf"(\.attentions\.\d+)\.{former}\.": rf"\1.{name}."
        for former, name in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items()
    },
)

MODEL_FILES = (ENCODER, SELECTOR_MERGER_QUANTIZER, DECODER, LANGUAGE, UNET, VAE)
"""What a folder in the layout of LaVIT-7B-v2 must hold."""

UNUSED_FILES = {
    "visual_tokenizer/tokenizer_decoder": "serves the low-resolution generator, which is not offered",
    "language_model/visual_weight": "serves image understanding, which is not offered",
}
"""Published weights files that are not read at all, and why."""

MASK_GENERATOR = KeyMap("mask_generator", ("mask_generator/model", "mask_generator/pytorch_model"))
ADAPTER = KeyMap("adapter", ("adapter/model", "adapter/pytorch_model"))
LORA = KeyMap("lora", ("adapter_model",))
"""Inside the folder that holds ``adapter_config.json``."""

CLIP = KeyMap(
    "clip",
    ("model", "pytorch_model"),
    ignored={r"(text_model|vision_model)\.embeddings\.position_ids": "counted up; saved by older transformers"},
)
"""Inside the folder of the CLIP model that compares drawn pixels."""

ALIGNMENT_FILES = (MASK_GENERATOR, ADAPTER, LORA)
"""What a published alignment is made of, one folder each."""


def packed(part: str) -> KeyMap:
    """The map of ``part`` in our own ``alignment.safetensors``, where each key begins with its part's name."""
    others = "|".join(entry.part for entry in ALIGNMENT_FILES if entry.part != part)
    return KeyMap(part, ("alignment",), {f"{part}.": ""}, {rf"({others})\..+": "belongs to another part"})
