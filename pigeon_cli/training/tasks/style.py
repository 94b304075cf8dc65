"""Stage ``style``: tokens that say how a picture is drawn, and the decoder that draws patches in another's style."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pigeon_cli.core.errors import UsageError
from pigeon_cli.models.embedding_decoder import EmbeddingDecoder
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches, normalise
from pigeon_cli.training.codebook import CodebookKeeper, k_means
from pigeon_cli.training.figures import PixelHead, gradient_loss, psnr, save_tensor_sheet
from pigeon_cli.training.loop import TrainingTask
from pigeon_cli.training.losses import contrast
from pigeon_cli.training.restyle import PICTURES_A_LOOK, Restyled, Restyler
from pigeon_cli.training.shipped import save_shipped
from pigeon_cli.training.sources import SourceShares
from pigeon_cli.training.tokenizer_start import fit_pixels, patches_of
from pigeon_cli.weights.checkpoint import load_part
from pigeon_cli.weights.store import ModelFolder

SHARES = SourceShares(own=0.3, plain=0.3)
OWN_STYLE_SHARE = 0.25
STYLE_FREE = 0.15
"""Share of the run in which style tokens are not quantised: their codes need something to be centres of."""
STYLE_PICTURES = 6000
"""Pictures whose style vectors make the first style codes."""
START_PICTURES = 1200
"""Pictures to which the throwaway head is fitted."""
EVALUATED = 192
CONTRAST_WEIGHT = 0.05
"""Of telling by their style tokens which two pictures wear one look. Reconstruction alone leaves style tokens empty for
thousands of steps, and a penalty on how two pictures of a look differ empties them for good."""
FOREIGN_WEIGHT = 0.5
"""Of pictures whose patches are another family's: what is to be drawn is partly a matter of chance there."""


class StyleTask(TrainingTask):
    """Pictures from their own or others' patches and the style tokens of others under the same look.

    Encoder, merger and the codes of patches stay as they are.
    """

    name = "style"

    def __init__(self, folder: ModelFolder, batches: IconBatches, batch: int, steps: int) -> None:
        self.folder, self.batches, self.batch, self.steps = folder, batches, batch, steps
        spec, device = folder.spec, batches.device
        if not spec.tokenizer.style_tokens:
            raise UsageError(f"{folder.path} has no style tokens", "set tokenizer.style_tokens in its config.json")
        self.config = spec.tokenizer
        self.tokenizer = VisualTokenizer(spec.tokenizer).to(device)
        load_part(self.tokenizer, folder.part("tokenizer"))
        self.tokenizer.requires_grad_(False)
        self.tokenizer.style_reader.requires_grad_(True)
        self.decoder = EmbeddingDecoder(spec.decoder).to(device)
        load_part(self.decoder, folder.part("decoder"))
        self.head = PixelHead(spec.decoder.context_width, self.config.grid, self.config.image_size).to(device)
        self.keeper = CodebookKeeper(self.config.style_codes, self.config.code_width).to(device)
        self.modules = {
            "tokenizer": self.tokenizer,
            "decoder": self.decoder,
            "head": self.head,
            "keeper": self.keeper,
        }
        self.restyler = Restyler(batches)
        self.latest: tuple[Tensor, Tensor] | None = None

    def loss(self, step: int, rng: random.Random) -> dict[str, Tensor]:
        batch = self.restyler.draw(rng, self.batch, SHARES, OWN_STYLE_SHARE)
        quantised = step >= STYLE_FREE * self.steps
        # On a CPU the fused attention's backward takes 3 times longer than plain products over 64 patches.
        with sdpa_kernel(SDPBackend.MATH):
            vectors, codes = self._style(batch.wanted)
            drawn = self._draw(batch, vectors, codes if quantised else None)
        weights = torch.where(batch.foreign, FOREIGN_WEIGHT, 1.0)[:, None, None, None]
        weights = weights / weights.mean()
        absolute = ((drawn - batch.wanted).abs() * weights).mean()
        edges = gradient_loss(drawn * weights, batch.wanted * weights)
        first, second = (functional.normalize(vectors[side::PICTURES_A_LOOK].flatten(1), dim=-1) for side in range(2))
        told = contrast(first[: len(second)], second)
        nearest = self.tokenizer.quantizer.lookup(codes).detach()
        commitment = (vectors - nearest).square().sum(-1).mean() * float(quantised)
        self.latest = (vectors.detach().flatten(0, 1), codes.flatten() - self.config.patch_codes) if quantised else None
        return {
            "loss": absolute + 0.5 * edges + CONTRAST_WEIGHT * told + 0.05 * commitment,
            "l1": absolute,
            "edges": edges,
            "contrast": told,
        }

    def _style(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit style vectors [B, S, code_width] of pictures [B,3,H,W], and their codes."""
        with torch.no_grad():
            features = self.tokenizer.patch_features(normalise(images))
        _, vectors = self.tokenizer.style_reader(features)
        vectors = functional.normalize(vectors, dim=-1)
        return vectors, self.tokenizer.quantize_style(vectors)

    def _draw(self, batch: Restyled, vectors: Tensor, codes: Tensor | None) -> Tensor:
        """Pictures [B,3,H,W] of the patches of ``batch.sources`` and the style of ``batch.style_rows``."""
        if codes is not None:
            vectors = vectors + (self.tokenizer.quantizer.lookup(codes) - vectors).detach()
        with torch.no_grad():
            features = self.tokenizer.patch_features(normalise(batch.sources))
            keep = self.tokenizer.select(features)
            patches = self.tokenizer.quantize(self.tokenizer.merge(features, keep)[1])
            places = self.tokenizer.quantizer.lookup(patches.masked_fill(keep < 0.5, -1))
        style = vectors[batch.style_rows]
        present = torch.cat([torch.ones(style.shape[:2], device=keep.device), keep], dim=1) > 0.5
        context = self.decoder(torch.cat([style, places.to(style.dtype)], dim=1), present).context
        return self.head(context).float()

    @torch.no_grad()
    def start(self) -> None:
        """Fit the throwaway head to the decoder as it is."""
        contexts, pictures = [], self.batches.draw(random.Random(0), START_PICTURES)
        for part in pictures.split(self.batch):
            codes = self.tokenizer.encode(normalise(part)).codes
            contexts.append(self.decoder(self.tokenizer.quantizer.lookup(codes), codes >= 0).context.flatten(0, 1))
        fit_pixels(self.head.pixels, torch.cat(contexts), patches_of(pictures, self.config.patch_size))

    def start_from(self, folder: ModelFolder) -> None:
        super().start_from(folder)
        self.start()

    def _style_codes(self) -> Tensor:
        """The rows of the codebook that style tokens have for themselves."""
        return self.tokenizer.quantizer.embedding.weight[self.config.patch_codes :]

    def after_step(self, step: int) -> None:
        if step + 1 == round(STYLE_FREE * self.steps):
            self._begin_codes()
        if self.latest is not None:
            self.keeper.update(self._style_codes(), *self.latest, step)

    @torch.no_grad()
    def _begin_codes(self) -> None:
        parts = range(STYLE_PICTURES // 100)
        pictures = (self.restyler.draw(random.Random(part), 100, SHARES, OWN_STYLE_SHARE).wanted for part in parts)
        rows = k_means(torch.cat([self._style(part)[0].flatten(0, 1) for part in pictures]), self.config.style_codes)
        self._style_codes().copy_(rows)
        self.keeper.begin(rows)

    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """Valid pictures from their own tokens, and with style tokens and patches of others."""
        restyler = Restyler(self.batches, self.batches.valid)
        kinds = {
            "psnr": (SourceShares(1.0, 0.0), 1.0),
            "psnr_plain": (SourceShares(0.0, 1.0), 0.0),
            "psnr_foreign": (SourceShares(0.0, 0.0), 0.0),
        }
        quantised, figures, columns = step >= STYLE_FREE * self.steps, {}, []
        for name, (shares, own_style) in kinds.items():
            batch = restyler.draw(random.Random(1), EVALUATED, shares, own_style)
            vectors, codes = self._style(batch.wanted)
            drawn = self._draw(batch, vectors, codes if quantised else None)
            figures[name] = psnr(drawn, batch.wanted)
            columns += [part[:16] for part in (batch.sources, batch.wanted[batch.style_rows], drawn, batch.wanted)]
        figures["style_agrees"] = float((codes == codes[batch.style_rows]).float().mean())
        headers = ["places of", "style of", "drawn", "wanted"] * len(kinds)
        save_tensor_sheet(folder / f"sheet-{step + 1:06d}.png", columns[2:], headers[2:])
        return figures

    def export(self) -> None:
        save_shipped(self.folder, "tokenizer", self.tokenizer.state_dict())
        save_shipped(self.folder, "decoder", self.decoder.state_dict())
