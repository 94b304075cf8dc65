"""One frozen dataclass per model part: every dimension of every module is a field here.

The released 7B model and the bundled ``mini`` differ only in these values and in the weights folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pigeon_cli.core.vocabulary import Vocabulary


@dataclass(frozen=True)
class VisualTokenizerConfig:
    """ViT encoder, selector, merger and quantizer (DESIGN.md section 2, "Visual tokenizer")."""

    image_size: int
    patch_size: int
    width: int
    encoder_depth: int
    encoder_heads: int
    merger_depth: int
    merger_heads: int
    code_count: int
    code_width: int
    suffix_selection: bool = False
    """Whether only tokens after the last kept one are dropped, so that every kept token stays at its patch's index
    (``mini``: a small model does not find the layout again once tokens before others are gone)."""
    style_tokens: int = 0
    """Tokens before those of the patches that say how the picture is drawn: colours, line, surface. A picture's style
    tokens can stand before another picture's patches (``mini``; 0: released weights)."""
    style_codes: int = 0
    """The last rows of the codebook, which style tokens have for themselves."""
    mlp_ratio: float = 4.3637
    encoder_norm_epsilon: float = 1e-6
    norm_epsilon: float = 1e-5

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        return self.grid**2

    @property
    def patch_codes(self) -> int:
        """The first rows of the codebook, which patches have for themselves."""
        return self.code_count - self.style_codes

    @property
    def tokens(self) -> int:
        """Most tokens of a picture: style tokens, then patches."""
        return self.style_tokens + self.patches


@dataclass(frozen=True)
class EmbeddingDecoderConfig:
    """Visual codes to the condition of the image generator."""

    code_width: int
    width: int
    depth: int
    heads: int
    queries: int
    context_widths: tuple[int, int] = (768, 1280)
    """Widths of the two projections; the context is their concatenation."""
    pooled_width: int = 1280
    style_tokens: int = 0
    """So many first codes of a picture do not stand at a place but modulate every layer (0: released weights)."""
    style_hidden: int | None = None
    """Hidden units of that modulation; ``None``: as many as ``width``."""
    mlp_ratio: float = 4.3637
    norm_epsilon: float = 1e-5

    @property
    def context_width(self) -> int:
        return sum(self.context_widths)


@dataclass(frozen=True)
class MaskGeneratorConfig:
    """Mask generator over history and reference tokens (DESIGN.md section 2, "Mask generator")."""

    width: int
    heads: int = 4
    layers: int = 1
    feed_forward: int = 2048
    positions: int = 257
    dropout: float = 0.1
    image_slots: int = 0
    """Rows of the image-index embedding; 0 leaves the embedding out (released weights)."""
    learned_temperature: float | None = None
    """Start of the learned softmax temperature; ``None`` means a fixed 1 without parameter."""
    surrogate_tau: float | None = None
    """Width of the surrogate gradient sigmoid((score - K-th score)/tau); ``None``: straight-through softmax."""
    level_embeddings: bool = False
    """Whether token embeddings enter with a root mean square of 1. Those of a small model are otherwise a tenth of
    what is added to them, positions and types, and hardly seen."""
    image_layers: int = 0
    """Layers before the others in which a token attends to its own image only (0: released weights). Their means say
    how an image is drawn, and its agreement with the others of the history is added to the scores of its tokens."""


@dataclass(frozen=True)
class AdapterConfig:
    """MLP from the decoder's context to the language model's embedding width, tanh inside."""

    input_width: int
    hidden_width: int
    output_width: int
    dropout: float = 0.1
    echo_width: int = 0
    """Width of what the translator makes of a place, of which the adapter makes an echo (0: released weights)."""


@dataclass(frozen=True)
class TranslatorConfig:
    """A transformer over the places of a reference, told the style of the history (``mini``)."""

    code_width: int
    style_tokens: int
    places: int
    width: int
    depth: int
    heads: int
    passes: int = 1
    """How often the blocks are passed: a deep translator in the bytes of a shallow one."""
    mlp_ratio: float = 3.0
    dropout: float = 0.1
    """Of what each layer adds, in training."""
    norm_epsilon: float = 1e-5


@dataclass(frozen=True)
class MemoryConfig:
    """Drawings that are known by heart, as latents (``mini``; ``models/memory.py``)."""

    drawings: int
    levels: int
    """Codebooks of which each patch of the latents takes one entry."""
    latent_channels: int
    latent_side: int
    """In places of the latents, not in pixels."""
    patch_side: int
    """In such places; what one index of each level says."""
    packed_bytes: int
    """What the indices of all drawings take."""
    things: int
    """What is drawn, each with a line in the list of names."""
    keys: int
    """Pictures by which a thing is recognised."""
    key_width: int
    hands: int
    """Ways in which things are drawn."""
    taste_width: int
    substitutes: int = 0
    """Drawings that stand in for those of other things that their hands never drew."""
    foretold: int = 0
    """Places that hands never drew, and of which the colours are kept that were foretold."""
    pictured: int = 0
    """Of the drawings, those that are kept as pictures."""
    picture_bytes: int = 0
    """What these take."""
    redrawn: int = 0
    """Places that hands never drew, and for which another's drawing is kept with what becomes of it."""
    sketched: int = 0
    """Of such drawings, those that are kept in few colours."""
    sketch_bytes: int = 0
    """What these take."""

    @property
    def patches(self) -> int:
        """Of one drawing, in reading order."""
        return (self.latent_side // self.patch_side) ** 2


@dataclass(frozen=True)
class LanguageConfig:
    """LLaMA sizes and LoRA; ids come from :class:`Vocabulary`."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    max_positions: int = 4096
    rms_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = False
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")


@dataclass(frozen=True)
class DiffusionConfig:
    """Keyword arguments of the diffusers classes, kept as data, and the sampling defaults."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    steps: int = 25
    guidance: float = 7.0
    image_size: int = 1024
    grid_channels: int = 0
    """Channels of the decoder grid joined to the UNet's input; 0 leaves it out (released weights)."""
    reference_channels: int = 0
    """Latent channels of the reference joined to them, as far as it is not hidden; 0 leaves it out (released weights).
    A small model's codes hold 90 bytes a picture, in which the lines of a reference are lost."""
    taste_width: int = 0
    """Of the history's taste that the UNet is told; 0: nothing of it (released weights)."""
    history_pictures: int = 0
    """Liked pictures that the UNet attends to (``models/history_encoder.py``); a shorter history is padded with
    pictures of which nothing is seen. 0: it sees none (released weights)."""
    history_widths: tuple[int, int, int] = (64, 128, 256)
    """Of the encoder's feature maps."""
    history_plain: bool = False
    """Whether each liked picture is seen beside the plain drawing that the memory finds for it."""
    taste_guidance: float = 1.0
    """How many times as strongly as by codes and reference a UNet is guided by what it is told of the history: shown
    another hand's drawing, it takes much of that hand's finish along. 1: all of it as one condition (released
    weights)."""
    guided_from: int = 0
    """Least timestep of the scheduler's that is guided: on what noise there is below it nothing is left to decide but
    lines, which guidance makes harder than they are. 0: all are (released weights)."""


@dataclass(frozen=True)
class SamplingConfig:
    """How codes are drawn from the language model."""

    beams: int = 4
    temperature: float = 1.0
    top_k: int = 50
    guidance: float = 1.0
    minimum_tokens: int = 20
    maximum_tokens: int = 300
    reference_guidance: float | None = None
    """Guidance of a reference that is drawn from words alone; ``None``: the same as of everything else."""
    fidelity: float = 0.0
    """What a place of the reference adds to the score of its own code there, in nats, as far as it is not hidden (0:
    released weights, ``pipeline/reference.py``). How a small model draws a meaning anew, nobody recognises."""
    recalled_fidelity: float | None = None
    """The same of a drawing from the memory by the history's own hand, which has only to be put into the history's
    look; ``None``: the same."""
    auto_samples: int = 1
    """Candidates of every dial position that ``auto`` tries, at least. One is the paper's; what a small model draws
    differs much, and one more costs little beside reading the history once."""


@dataclass(frozen=True)
class ScorerConfig:
    """A small transformer on the decoder's context that compares images and words (RECIPE.md point 7)."""

    input_width: int
    queries: int
    width: int
    depth: int
    heads: int
    text_size: int
    history_share: float = 0.5
    """What agreement with the history counts in a score; the rest is shared by reference and words. Half is the paper's
    rule; where every candidate is in the history's style already, what it shows tells more (``mini``)."""
    hidden_penalty: float = 0.0
    """What hiding the whole reference costs a score, and hiding a part of it accordingly, in the scores' deviations. A
    small scorer hardly tells a drawing that shows what was asked for from one that could not know it (``mini``)."""


@dataclass(frozen=True)
class TasteConfig:
    """What reads the taste of a history off whole pictures (``models/taste.py``)."""

    feature_width: int
    """Of the visual tokenizer's patch features."""
    hidden_width: int
    width: int


@dataclass(frozen=True)
class ModelSpec:
    """Everything that tells one model size from another."""

    name: str
    vocabulary: Vocabulary
    tokenizer: VisualTokenizerConfig
    decoder: EmbeddingDecoderConfig
    mask_generator: MaskGeneratorConfig
    adapter: AdapterConfig
    language: LanguageConfig
    diffusion: DiffusionConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    scorer: ScorerConfig | None = None
    translator: TranslatorConfig | None = None
    """``None``: nothing is told of single places (released weights)."""
    memory: MemoryConfig | None = None
    """``None``: whatever words ask for is drawn (released weights)."""
    taste: TasteConfig | None = None
    """``None``: the history is told by its codes alone (released weights)."""
    reference_slots: int = 1
    """Embeddings that stand for the reference in the prompt: 1 = mean over all queries (released)."""
    place_stride: int = 0
    """0: tokens stand one after another (released). Else positions say the place in the picture, ``place_stride``
    apart, so that one place of all pictures and of the reference is close together (``mini``);
    :func:`pigeon_cli.pipeline.positions.token_positions`."""
    repack_reference: bool = True
    """Dropped reference tokens are removed and the rest re-packed (released) or hidden in place (``mini``)."""
    frame_reference: bool = False
    """Whether a reference is put on its paper as the liked images are on theirs (``history/framing.py``; ``mini``)."""
    history_markers: bool = False
    """Whether image start and end surround every history image (``mini``) or the target only (released)."""
    history_size: int = 5
    history_mask: float = 0.2
    default_mask: str = "similarity"
