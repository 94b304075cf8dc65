"""The language-model baseline: the base model without alignment and without history draws from the words alone.

Not run with real weights: tested on tiny random ones. ``--model`` is a model folder of pigeon; the request's words are
the prompt, at the model's own settings, and the image generator (diffusers) draws the codes.
"""

from __future__ import annotations

import argparse
import sys

import torch
from PIL import Image

from pigeon_cli.engine.devices import DeviceChoice
from pigeon_cli.engine.residency import BASE, DECODER, TOKENIZER, UNET, VAE
from pigeon_cli.evaluation.baselines import STATUS
from pigeon_cli.evaluation.drawing import RowMaker, main
from pigeon_cli.evaluation.pictures import Shown
from pigeon_cli.pipeline.decode import condition, draw_latents, to_images
from pigeon_cli.pipeline.imagine import imagine_reference, reference_prompt
from pigeon_cli.pipeline.session import Session
from pigeon_cli.weights.store import find_model


class WordsOnly:
    """A session that is never shown an image."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @torch.inference_mode()
    def draw(self, shown: Shown, stream: torch.Generator) -> Image.Image | None:
        """``None`` without words."""
        if not shown.words:
            return None
        session = self._session
        spec, parts = session.spec, session.parts
        prompt = reference_prompt(session.text, spec, shown.words)
        with parts.use(BASE) as model:
            codes = imagine_reference(model, spec, prompt, stream, spec.sampling)
        with parts.use(TOKENIZER) as tokenizer, parts.use(DECODER) as decoder:
            wanted = condition(decoder, tokenizer.quantizer, [codes])
        diffusion = spec.diffusion
        with parts.use(UNET) as unet:
            latents = draw_latents(
                unet, diffusion, wanted, [stream], steps=diffusion.steps, guidance=diffusion.guidance
            )
        with parts.use(VAE) as vae:
            return to_images(vae, latents)[0]


def load(given: argparse.Namespace, device: torch.device) -> WordsOnly:
    """The rival of ``--model``; raises :class:`WeightsError`."""
    return WordsOnly(Session(find_model(given.model), DeviceChoice(device, "as asked")))


MAKER = RowMaker(
    "pigeon_cli.evaluation.baselines.words_only", "The base language model, words alone", load, status=STATUS
)

if __name__ == "__main__":
    sys.exit(main(MAKER))
