"""First weights of the tokenizer stage: patch-wise vector quantisation on principal components, inside the networks.

From random weights the stage spends its time on learning what three closed forms give at once: 15 principal components
of a patch, a codebook by k-means over them, and pixels back from a code by least squares. On valid pictures that start
is worth 18 dB; random weights needed 2,800 steps for as much. Attention and feed-forward layers begin as nothing
(their last map is zero) and learn what neighbours tell.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pigeon_cli.models.embedding_decoder import DecoderBlock, EmbeddingDecoder
from pigeon_cli.models.eva_vit import EvaBlock
from pigeon_cli.models.merger import MergerBlock
from pigeon_cli.models.visual_tokenizer import VisualTokenizer

TANH_SCALE = 0.1
"""Values before a task layer's tanh are scaled by this, to where it is nearly straight."""
COMPONENT_SIZE = 10.0
"""Root mean square length of the components: weights come out as large as usual, so that the first steps do not wipe
them out."""
CONSTANT = 1.5
"""Size of the constant dimensions."""
CONSTANT_SHARE = 1.5
"""Weight of the constant coordinate against the components: more keeps lengths straighter, but fills less of the
sphere that codes lie on."""
SHARPNESS = 2.6
"""Scale of the decoder's first keys: a query then gives its own code nearly all of its attention."""


@torch.no_grad()
def start_encoder(tokenizer: VisualTokenizer, pixels: Tensor) -> None:
    """Make the task vectors of ``tokenizer`` principal components of the patches of ``pixels`` [B, 3, H, W].

    The last of the ``code_width`` coordinates is constant, so that a direction keeps how far a patch is from the mean.
    """
    config = tokenizer.config
    patches = patches_of(pixels, config.patch_size)
    mean, components = principal_components(patches, config.width // 4)
    wanted = config.code_width - 1
    projected = (patches - mean) @ components[:wanted].T
    scale = COMPONENT_SIZE / float(projected.square().sum(1).mean().sqrt())
    embed = tokenizer.encoder.patch_embed.proj
    # Everything stands twice, with both signs: the layer norms then find a mean of zero and take nothing away.
    rows = torch.cat([components, -components]) * scale
    half = len(rows)
    embed.weight.zero_()
    embed.weight[:half] = rows.view(half, *embed.weight.shape[1:])
    bias = cast(Tensor, embed.bias)
    bias[:half] = -(rows @ mean)
    bias[half:] = CONSTANT * torch.tensor([1.0, -1.0]).repeat((config.width - half) // 2)
    for block in tokenizer.encoder.blocks:
        assert isinstance(block, EvaBlock)
        _silence(block.attn.proj, block.mlp.fc2)
    for block in tokenizer.merger.blocks:
        assert isinstance(block, MergerBlock)
        _silence(block.token_causal_attn.proj, block.token_cross_attn.proj, block.mlp.fc2)
    first, last = cast(nn.Linear, tokenizer.task_layer[0]), cast(nn.Linear, tokenizer.task_layer[2])
    first.weight[: config.code_width] = 0.0
    first.bias[: config.code_width] = 0.0
    first.weight[:wanted, :wanted] = torch.eye(wanted) * TANH_SCALE
    constant = bias[half:] / bias[half:].square().sum() * COMPONENT_SIZE * CONSTANT_SHARE
    first.weight[wanted, half:] = TANH_SCALE * constant
    last.weight.zero_()
    last.bias.zero_()
    last.weight[:, : config.code_width] = torch.eye(config.code_width) / TANH_SCALE


@torch.no_grad()
def start_decoder(decoder: EmbeddingDecoder) -> None:
    """Start so that query i reads code i and little else; from uniform attention the layout takes thousands of steps.

    A third of the width carries what the codes say, the rest where they stand.
    """
    width = decoder.config.width
    content = width // 3
    generator = torch.Generator().manual_seed(0)
    table = torch.zeros(decoder.config.queries, width)
    table[:, content:] = torch.randn(decoder.config.queries, width - content, generator=generator)
    decoder.query_embed.copy_(table * 0.5)
    decoder.pos_embed.copy_(table * 0.5)
    decoder.in_proj.weight[content:] = 0.0
    decoder.in_proj.weight[:content] = torch.randn(content, decoder.config.code_width, generator=generator)
    decoder.in_proj.bias.zero_()
    for place, block in enumerate(decoder.blocks):
        assert isinstance(block, DecoderBlock)
        shared = torch.randn(width, width, generator=generator) * SHARPNESS / width**0.5
        shared[:, :content] = 0.0
        block.cross_attn.query.weight.copy_(shared)
        block.cross_attn.key.weight.copy_(shared)
        _silence(block.self_attn.proj, block.mlp.fc2, block.cross_attn.proj)
        block.cross_attn.value.weight[:, content:] = 0.0
        block.cross_attn.value.bias.zero_()
        if not place:
            block.cross_attn.value.weight[:content, :content] = torch.eye(content)
            block.cross_attn.proj.weight[:content, :content] = torch.eye(content)


@torch.no_grad()
def fit_pixels(pixels: nn.Linear, context: Tensor, patches: Tensor) -> None:
    """Set ``pixels`` to the ridge regression from ``context`` [n, C] to ``patches`` [n, 3 * side * side]."""
    mean, centre = context.mean(0), patches.mean(0)
    inputs, outputs = (context - mean).double(), (patches - centre).double()
    gram = inputs.T @ inputs
    ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram + ridge, inputs.T @ outputs).float()
    pixels.weight.copy_(solution.T)
    pixels.bias.copy_(centre - mean @ solution)


def patches_of(images: Tensor, side: int) -> Tensor:
    """Square patches [B * patches, C * side * side] of [B, C, H, W], in reading order, channels outermost."""
    return functional.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1)


def principal_components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean [D] of ``rows`` [n, D] and the first ``count`` directions [count, D] of their covariance."""
    mean = rows.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov(rows.T.double()))
    return mean, vectors.flip(1)[:, :count].T.float()


def _silence(*layers: nn.Linear) -> None:
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()
