"""The mask generator learns from the reconstruction loss alone (DESIGN.md, "Making the mask learn")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pigeon_cli.core.configs import LanguageConfig, MaskGeneratorConfig
from pigeon_cli.core.vocabulary import Vocabulary
from pigeon_cli.models.language import build_language_model
from pigeon_cli.models.mask_generator import HISTORY, MaskDecision, MaskGenerator
from pigeon_cli.pipeline.mask import TokenLayout, choose_mask, lay_out, reference_part
from pigeon_cli.pipeline.prompt import PromptBatch, embed_prompt, merge_prompt, pad_prompts, spread_keep
from pigeon_cli.training.losses import reconstruction_loss

WIDTH = 32
VOCABULARY = Vocabulary(text_size=8, code_count=64)
TEXT = 3
IMAGES, TOKENS, PLANTED = 5, 8, 0.2


def mask_generator(surrogate_tau: float | None = 1.0) -> MaskGenerator:
    return MaskGenerator(
        MaskGeneratorConfig(
            width=WIDTH,
            feed_forward=64,
            positions=17,
            dropout=0.0,
            image_slots=IMAGES + 1,
            learned_temperature=0.07,
            surrogate_tau=surrogate_tau,
        )
    )


def language_model(layers: int = 2) -> nn.Module:
    config = LanguageConfig(hidden_size=WIDTH, intermediate_size=64, layers=layers, heads=4, max_positions=128)
    return build_language_model(config, VOCABULARY)


def tokens_of(codes: Tensor) -> list[int]:
    return (codes + VOCABULARY.first_code).tolist()


class Toy:
    """Users have one of eight tastes: four codes each out of 0..31; the target repeats those of the user.

    A fifth of the history tokens are planted codes 32..63, tied to a wrong taste: reading them misleads.
    """

    def __init__(self, seed: int, requests: int) -> None:
        stream = torch.Generator().manual_seed(seed)

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=stream)

        tastes, wrong = draw(8, requests, 1), draw(8, requests, 1)
        total = IMAGES * TOKENS
        clean = tastes * 4 + draw(4, requests, total)
        noise = 32 + wrong * 4 + draw(4, requests, total)
        order = torch.rand(requests, total, generator=stream).argsort(dim=1)
        self.planted = order < round(PLANTED * total)
        history = torch.where(self.planted, noise, clean).reshape(requests, IMAGES, TOKENS)
        target = tastes * 4 + torch.arange(4)
        self.reference = draw(32, requests, TOKENS)
        prompt = [*[VOCABULARY.image_start] * IMAGES, TEXT, VOCABULARY.reference_placeholder, VOCABULARY.image_start]
        histories = [[tokens_of(image) for image in row] for row in history]
        self.layout: TokenLayout = lay_out(histories, [tokens_of(row) for row in self.reference], VOCABULARY.pad)
        self.batch: PromptBatch = pad_prompts(
            [
                merge_prompt(prompt, row, VOCABULARY, response=tokens_of(codes))
                for row, codes in zip(histories, target, strict=True)
            ],
            VOCABULARY,
        )


def decide_toy(toy: Toy, generator: MaskGenerator, model: nn.Module, noise_seed: int | None = None) -> MaskDecision:
    streams = None
    if noise_seed is not None:
        rows = toy.layout.ids.shape[0]
        streams = [torch.Generator().manual_seed(noise_seed * rows + row) for row in range(rows)]
    return choose_mask(
        "learned",
        toy.layout,
        0.2,
        0.5,
        generator=generator,
        embedding=model.get_input_embeddings(),
        streams=streams,
        invert_reference=True,
    )


def toy_loss(toy: Toy, decision: MaskDecision, model: nn.Module) -> Tensor:
    """Stage 1 with a mean of kept reference embeddings in place of decoder and adapter."""
    table = model.get_input_embeddings()
    ids, present, keep = reference_part(toy.layout, decision.keep, repack=False)
    weights = (keep * present).unsqueeze(-1)
    reference = (table(ids) * weights).sum(1, keepdim=True) / TOKENS
    embeddings = embed_prompt(table, toy.batch.ids, reference, spread_keep(toy.batch, decision.keep))
    logits = model(inputs_embeds=embeddings, attention_mask=toy.batch.attention).logits
    return reconstruction_loss(logits, toy.batch.labels)


def test_every_parameter_gets_a_gradient() -> None:
    for surrogate_tau in (None, 1.0):
        torch.manual_seed(0)
        generator, model, toy = mask_generator(surrogate_tau), language_model(), Toy(0, 4)
        toy_loss(toy, decide_toy(toy, generator, model), model).backward()
        for name, parameter in generator.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name


def planted_share(toy: Toy, decision: MaskDecision) -> float:
    """Share of planted tokens among the dropped history tokens."""
    history = (toy.layout.types == HISTORY)[:, : IMAGES * TOKENS]
    dropped = (decision.keep[:, : IMAGES * TOKENS] == 0) & history
    return float((dropped & toy.planted).sum() / dropped.sum())


def test_planted_noise_is_dropped() -> None:
    torch.manual_seed(0)
    generator, model = mask_generator(), language_model()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.parameters(), "lr": 3e-3},
            {"params": generator.parameters(), "lr": 3e-3},
        ],
        weight_decay=0.0,
    )
    unseen = Toy(10_000, 64)
    with torch.no_grad():
        before = planted_share(unseen, decide_toy(unseen, generator, model))
    for step in range(200):
        toy = Toy(step, 32)
        loss = toy_loss(toy, decide_toy(toy, generator, model, step), model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = planted_share(unseen, decide_toy(unseen, generator, model))
    assert before < 0.5
    assert after > 0.6
