"""Stage ``foretell``: how a hand would draw what it never drew, for the drawings that the memory is to hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional

from pigeon_cli.core.errors import InputError
from pigeon_cli.models.diffusion import build_vae, encode_latents, restore_latents
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.data.alike import outlines_of
from pigeon_cli.training.data.dataset import IconRecord
from pigeon_cli.training.data.looks import PLAIN, apply_look
from pigeon_cli.training.data.sets import HANDS, ICON_SETS
from pigeon_cli.training.drawing_critic import DrawingCritic, critic_loss, feature_loss, passing_loss
from pigeon_cli.training.drawn_pictures import decode_pictures
from pigeon_cli.training.figures import save_tensor_sheet
from pigeon_cli.training.foretelling import (
    EXAMPLES,
    LISTED,
    SIDE,
    Foreteller,
    ForetellingNetwork,
    drawn_table,
    look_up,
    patch_width,
    patched,
)
from pigeon_cli.training.frozen_reader import frozen
from pigeon_cli.training.loop import LoopSettings, MovingAverage, TrainingTask
from pigeon_cli.training.memory import kinship
from pigeon_cli.training.pixel_metric import pixel_metric
from pigeon_cli.training.substitutes import DrawnThings
from pigeon_cli.weights.store import ModelFolder

AVERAGE_DECAY = 0.997
VARIANTS: Final = ((False, (0, 1, 2)), (True, (0, 1, 2)), (False, (1, 2, 0)))
"""Of all drawings alike: whether they are turned over, and the order of their colours."""
ALONE: Final = 0.4
"""Share of the steps before the critic judges."""
PASSING, FEATURES, EASED = 0.7, 5.0, 200
"""What the critic's gradient weighs at the drawing, as a share of that of the error; what features count beside its
verdict; and in how many steps it begins to count."""
CRITIC_BETAS: Final = (0.0, 0.99)
SHAKEN: Final = 6
"""Pixels by which drawn and foretold are moved before the critic sees them, so that it learns none by heart."""
AS_IT_IS: Final = 0.5
"""Share of the first."""
SIBLINGS_HIDDEN, SOME_HIDDEN, HIDDEN = 0.5, 0.5, 0.3
"""Shares of drawings without those of the hand's family beside them; of those without some others, and of which."""
LIKELIEST: Final = 0.5
"""Share of drawings beside which the likeliest examples stand, as at use."""
FINISHED: Final = 0.4
"""What hands count whose drawings mostly are a sibling's in another finish: those are made from their siblings."""
SIBLINGS: Final = torch.tensor([[ICON_SETS[one].family == ICON_SETS[other].family for other in HANDS] for one in HANDS])
"""Bool [hands, hands]."""
NO_LENGTH: Final = 1e-3
"""Added to squared lengths, whose roots have no gradient at zero."""
PICTURES: Final = 32
SHEET_ROWS: Final = 24


class ForetellTask(TrainingTask):
    """How far foretold patches are from the drawn ones, as their pixels go (:mod:`pigeon_cli.training.pixel_metric`);
    lengths and not squares, for what is unlikely shall not pull. After a share of the steps a critic of pictures, which
    learns beside, is to take them for the hand's.

    The network goes on in the run's checkpoint only: the stage ``memory`` reads it from there.
    """

    name = "foretell"

    def __init__(self, folder: ModelFolder, batches: IconBatches, batch: int, steps: int) -> None:
        self.batches, self.batch, self.device = batches, batch, batches.device
        self.alone = round(ALONE * steps)
        # diffusers does not say what its classes can do.
        self.vae = frozen(cast(Any, build_vae(folder.spec.diffusion)), folder, "vae", self.device)
        records = batches.train
        lines = outlines_of(batches.dataset, records)
        drawn, kin = DrawnThings(batches, records, lines, HANDS), kinship(records, lines)
        self.table = drawn_table(records, drawn, kin)
        numbers = {thing: number for number, thing in enumerate(drawn.things)}
        self.places = self._places(records, numbers)
        if not bool((self.table.rows >= 0).sum(1).gt(1).any()):
            raise InputError("no two sets of the dataset draw the same thing", "leave the stage foretell out")
        self.plain = self._latents(records)
        self.metric = pixel_metric(self.vae, self.plain.cpu(), SIDE).to(self.device)
        others = [self._latents(records, *variant) for variant in VARIANTS[1:]]
        self.patches = torch.stack([patched(latents) for latents in (self.plain, *others)])
        self.valid = [record for record in batches.valid if record.meaning in numbers]
        self.valid_places, self.valid_latents = self._places(self.valid, numbers), self._latents(self.valid)
        self.weights = torch.tensor([FINISHED if _finishes(record) else 1.0 for record in records])
        self.network = ForetellingNetwork(patch_width(folder.spec.diffusion)).to(self.device)
        self.average = MovingAverage(self.network, AVERAGE_DECAY).to(self.device)
        self.critic = DrawingCritic(len(HANDS), len(VARIANTS)).to(self.device)
        self.modules = {"network": self.network, "average": self.average, "critic": self.critic}

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        chosen = torch.multinomial(self.weights, self.batch, replacement=True)
        variants = torch.tensor(
            [0 if rng.random() < AS_IT_IS else rng.randrange(1, len(VARIANTS)) for _ in range(self.batch)]
        )
        things, hands = self.places[chosen].T
        numbers = torch.cat([self._others(things, hands), self._examples(things, hands)], dim=1)
        # The variants lie one behind another.
        first = variants.unsqueeze(1) * len(self.places)
        every = self.patches.flatten(0, 1)
        shown, there = look_up(every, torch.where(numbers >= 0, numbers + first, numbers))
        wanted = every[(chosen + first[:, 0]).to(self.device)]
        foretold = self.network(shown, there, hands.to(self.device))
        if step < self.alone:
            return {"loss": self._error(foretold, wanted)}
        moved = [rng.randint(-SHAKEN, SHAKEN) for _ in range(2)]
        return self._judged(foretold, wanted, hands.to(self.device), variants.to(self.device), moved, step - self.alone)

    def _judged(
        self, foretold: Tensor, wanted: Tensor, hands: Tensor, variants: Tensor, moved: Sequence[int], step: int
    ) -> dict[str, Tensor]:
        """Losses of the network and of the critic in one: each is a constant to the other."""
        made = foretold.detach().float().requires_grad_()
        drawn, pictures = self._pictures(wanted, moved).detach(), self._pictures(made, moved)
        real, real_features = self.critic(drawn, hands, variants)
        critic = critic_loss(real, self.critic(pictures.detach(), hands, variants)[0])
        # A state is detached: the critic does not learn from what is wished of the network.
        verdicts, features = torch.func.functional_call(
            self.critic, self.critic.state_dict(), (pictures, hands, variants)
        )
        passing = passing_loss(verdicts)
        wishes = passing + FEATURES * feature_loss([each.detach() for each in real_features], features)
        error = self._error(made, wanted)
        (nearer,), (harder,) = torch.autograd.grad(error, made), torch.autograd.grad(wishes, made)
        share = PASSING * min(1.0, (step + 1) / EASED) * nearer.norm() / harder.norm().clamp_min(1e-12)
        pulled = (foretold.float() * (nearer + share * harder)).sum()
        loss = critic + error.detach() + pulled - pulled.detach()
        return {"loss": loss, "error": error.detach(), "critic": critic.detach(), "passing": passing.detach()}

    def _pictures(self, patches: Tensor, moved: Sequence[int]) -> Tensor:
        """Pictures [B, 3, S, S] in -1..1 of patches, ``moved`` by pixels down and to the right."""
        latents = functional.pixel_shuffle(patches.float(), SIDE)
        pictures: Tensor = self.vae.decode(restore_latents(self.vae, latents)).sample
        return pictures.roll(tuple(moved), (2, 3))

    def _others(self, things: Tensor, hands: Tensor) -> Tensor:
        """Others' drawings, int64 [B, hands], some of them hidden: of what a hand never drew often less is known."""
        others = self.table.others(things, hands)
        hidden = SIBLINGS[hands] & (torch.rand(len(things), 1) < SIBLINGS_HIDDEN)
        hidden |= (torch.rand(len(things), 1) < SOME_HIDDEN) & (torch.rand(others.shape) < HIDDEN)
        return others.masked_fill(hidden, -1)

    def _examples(self, things: Tensor, hands: Tensor) -> Tensor:
        """Examples int64 [B, EXAMPLES], the likeliest or any of those listed."""
        likeliest = torch.arange(EXAMPLES).expand(len(things), -1)
        any_of_them = torch.rand(len(things), LISTED).argsort(1)[:, :EXAMPLES].sort(1).values
        as_at_use = torch.rand(len(things), 1) < LIKELIEST
        return self.table.examples[things, hands].gather(1, torch.where(as_at_use, likeliest, any_of_them))

    def _error(self, foretold: Tensor, wanted: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            apart = (foretold.float() - wanted).flatten(2).transpose(1, 2) @ self.metric
            return (apart.square().sum(2) + NO_LENGTH).sqrt().mean()

    @torch.no_grad()
    def _latents(self, records: Sequence[IconRecord], over: bool = False, order: Sequence[int] = (0, 1, 2)) -> Tensor:
        """Scaled latents [N, c, h, w] of plain drawings, turned over or recoloured."""
        parts = []
        for start in range(0, len(records), PICTURES):
            pictures = apply_look(PLAIN, self.batches.rgba(list(records[start : start + PICTURES])))[:, list(order)]
            parts.append(encode_latents(self.vae, pictures.flip(3) if over else pictures))
        return torch.cat(parts) if parts else torch.zeros(0, device=self.device)

    def _places(self, records: Sequence[IconRecord], numbers: dict[str, int]) -> Tensor:
        """Things and hands, int64 [N, 2]."""
        return torch.tensor([(numbers[one.meaning], HANDS.index(one.set)) for one in records], dtype=torch.int64)

    def after_step(self, step: int) -> None:
        self.average.update(self.network, step)

    def parameter_groups(self, settings: LoopSettings) -> list[dict[str, Any]]:
        """Those of the network, and the critic's."""
        critics = dict.fromkeys(self.critic.parameters())
        groups = super().parameter_groups(settings)
        for group in groups:
            group["params"] = [each for each in group["params"] if each not in critics]
        return [*groups, {"params": list(critics), "weight_decay": 0.0, "betas": CRITIC_BETAS}]

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """The error on valid drawings, as the network foretells them, and of the mean of what it is shown."""
        if not len(self.valid):
            return {}
        with self.average.in_place_of(self.network):
            foretold = Foreteller(self.network, self.table)(self.plain, self.valid_places)
        wanted, some = patched(self.valid_latents), slice(SHEET_ROWS)
        shown, there = look_up(patched(self.plain), self.table.shown(*self.valid_places.T))
        mean = shown.sum(1) / there.sum(1).clamp_min(1)[:, None, None, None]
        rows = (functional.pixel_shuffle(mean, SIDE), foretold, self.valid_latents)
        columns = [decode_pictures(self.vae, part[some].float()) for part in rows]
        save_tensor_sheet(folder / f"sheet-{step + 1:06d}.png", columns, ["mean of what is shown", "foretold", "drawn"])
        figures = {"valid_loss": patched(foretold), "valid_loss_of_the_mean": mean}
        return {name: float(self._error(part, wanted)) for name, part in figures.items()}

    def export(self) -> None:
        """Nothing: no weights of the model are trained here."""


def _finishes(record: IconRecord) -> bool:
    """Whether most of a set's drawings are another's in another finish."""
    own = ICON_SETS[record.set]
    return own.family == "fluent" or own.monochrome
