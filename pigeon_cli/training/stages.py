"""What ``pigeon train STAGE`` and ``pigeon align`` start: folders, devices, tasks and their defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sentencepiece
import torch

from pigeon_cli.core.errors import InputError, UsageError
from pigeon_cli.core.randomness import stream_seed
from pigeon_cli.engine.devices import DeviceChoice, choose_device
from pigeon_cli.models.visual_tokenizer import VisualTokenizer
from pigeon_cli.training.batches import IconBatches
from pigeon_cli.training.code_cache import CodeOrigin, build_code_cache, load_code_cache
from pigeon_cli.training.data.dataset import load_dataset
from pigeon_cli.training.data.requests import draw_evaluation_requests
from pigeon_cli.training.frozen_reader import frozen, frozen_taste_reader
from pigeon_cli.training.loop import LoopSettings, TrainingTask, run_training
from pigeon_cli.training.request_codes import RequestSampler, encode_requests
from pigeon_cli.training.request_sheet import RequestSheet
from pigeon_cli.training.sequences import SequenceSampler
from pigeon_cli.weights.store import ModelFolder


@dataclass(frozen=True)
class StageDefaults:
    """Length and optimizer of a stage where the command line says nothing."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    epochs: int | None = None
    """Length of a run on data that ends, instead of ``steps``."""
    patience: int | None = None


DEFAULTS = {
    "vae": StageDefaults(2000, 8, 1.5e-3),
    "tokenizer": StageDefaults(4000, 48, 1e-3),
    "style": StageDefaults(3000, 32, 1e-3),
    "taste": StageDefaults(4000, 192, 3e-3),
    "translator": StageDefaults(8000, 64, 2e-3),
    "decoder": StageDefaults(3000, 32, 1e-3),
    "foretell": StageDefaults(2400, 96, 4e-4, warmup=60),
    "language": StageDefaults(4000, 16, 1.5e-3),
    "scorer": StageDefaults(1500, 96, 2e-3),
}
"""Stages that run the training loop; ``text``, ``encode`` and ``memory`` are computed in one go."""
SCORED_REQUESTS = 192
"""Valid requests among whose right answers the scorer must find the one of each."""


@dataclass(frozen=True)
class StageOptions:
    """What the command line passes on; ``None`` takes the stage's default."""

    data: Path
    model: Path
    runs: Path
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    evaluate_every: int = 500
    looks: int = 40
    cells: int = 384
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    init_from: Path | None = None
    target: str = "mixed"
    """Only for reconstruct, a key of ``SELF_SHARES``."""
    out: Path | None = None
    """Only for reconstruct: an alignment folder instead of the model's own files."""
    gradient_checkpointing: bool = False
    """Only for reconstruct."""


def run_stage(name: str, options: StageOptions, say: Callable[[str], None]) -> dict[str, float]:
    """Run one stage to its end; returns its last figures. Errors are :class:`PigeonError` subclasses."""
    device = choose_device(options.device)
    say(f"{name}: {device.reason}, {torch.get_num_threads()} threads")
    folder = ModelFolder(options.model)
    batches = IconBatches(load_dataset(options.data), device.device)
    if name == "text":
        from pigeon_cli.training.tasks.text import train_text

        return {"pieces": train_text(folder, batches.dataset)}
    if name == "encode":
        tokenizer = frozen_tokenizer(folder, device)
        cache, origin = options.runs / "codes", CodeOrigin.of(folder, options.data)
        return {
            "pictures": build_code_cache(
                tokenizer, batches, cache, origin, options.looks, options.cells, options.seed, say
            )
        }
    if name == "memory":
        return {"drawings": _remember(folder, batches, options, device, say)}
    if name not in DEFAULTS:
        raise UsageError(
            f"there is no training stage {name!r}", f"use one of: text, encode, memory, {', '.join(DEFAULTS)}"
        )
    settings = loop_settings(name, options)
    torch.manual_seed(stream_seed(options.seed, name, "first weights"))
    task = build_task(name, folder, batches, options, settings, device)
    if options.init_from is not None:
        task.start_from(ModelFolder(options.init_from))
    elif not settings.checkpoint.exists():
        task.start()
    return run_training(task, settings, device, say)


def _remember(
    folder: ModelFolder, batches: IconBatches, options: StageOptions, device: DeviceChoice, say: Callable[[str], None]
) -> int:
    """The stage ``memory``; returns how many drawings are kept."""
    from pigeon_cli.training.finishes import Finishes
    from pigeon_cli.training.foretelling import load_foretelling_network
    from pigeon_cli.training.memory import build_memory

    reader = frozen_taste_reader(folder, batches.device)
    if reader is None:
        raise UsageError(f"{folder.path} has no taste reader", "describe one in its config.json, then: train taste")
    tokenizer = frozen_tokenizer(folder, device)
    foretold = load_foretelling_network(
        loop_settings("foretell", options).checkpoint, folder.spec.diffusion, batches.device
    )
    if foretold is None:
        say("memory: no run of the stage foretell is in the run folder: what a set never drew is left out")
    return build_memory(folder, batches, tokenizer, reader, partial(Finishes, batches, say), foretold)


def loop_settings(name: str, options: StageOptions) -> LoopSettings:
    """The loop's settings: the stage's defaults where the options leave them open."""
    defaults = DEFAULTS[name]
    return LoopSettings(
        run_folder=options.runs / name,
        steps=options.steps or defaults.steps,
        batch=options.batch or defaults.batch,
        learning_rate=defaults.learning_rate if options.learning_rate is None else options.learning_rate,
        seed=options.seed,
        warmup=defaults.warmup,
        evaluate_every=options.evaluate_every,
        resume=options.resume,
    )


def build_task(
    name: str,
    folder: ModelFolder,
    batches: IconBatches,
    options: StageOptions,
    settings: LoopSettings,
    device: DeviceChoice,
) -> TrainingTask:
    """The task of a stage; modules of other stages are loaded frozen from ``folder``."""
    if name == "vae":
        from pigeon_cli.training.tasks.vae import VaeTask

        return VaeTask(folder, batches, settings.batch)
    if name == "tokenizer":
        from pigeon_cli.training.tasks.tokenizer import TokenizerTask

        return TokenizerTask(folder, batches, settings.batch, settings.steps)
    if name == "style":
        from pigeon_cli.training.tasks.style import StyleTask

        return StyleTask(folder, batches, settings.batch, settings.steps)
    if name == "foretell":
        from pigeon_cli.training.tasks.foretell import ForetellTask

        return ForetellTask(folder, batches, settings.batch, settings.steps)
    tokenizer = frozen_tokenizer(folder, device)
    if name == "taste":
        from pigeon_cli.training.tasks.taste import TasteTask

        return TasteTask(folder, batches, tokenizer, settings.batch, settings.steps)
    if name == "decoder":
        from pigeon_cli.training.tasks.decoder import DecoderTask

        head = loop_settings("translator", options).checkpoint
        return DecoderTask(folder, batches, tokenizer, settings.batch, settings.steps, head)
    return _code_task(name, folder, batches, tokenizer, options, settings, device)


def _code_task(
    name: str,
    folder: ModelFolder,
    batches: IconBatches,
    tokenizer: VisualTokenizer,
    options: StageOptions,
    settings: LoopSettings,
    device: DeviceChoice,
) -> TrainingTask:
    """The task of a stage that reads encoded pictures."""
    sampler = SequenceSampler(
        folder.spec,
        batches.dataset,
        load_code_cache(options.runs / "codes", CodeOrigin.of(folder, options.data)),
        text_processor(folder),
        tokenizer.quantizer.embedding.weight.float().cpu().numpy(),
    )
    drawn = draw_evaluation_requests(batches.dataset, "valid", 64, seed=1)
    coded = encode_requests(tokenizer, batches, drawn)
    sheet = RequestSheet(folder, batches, device, drawn, coded)
    if name == "scorer":
        from pigeon_cli.training.tasks.scorer import ScorerTask

        answers = encode_requests(
            tokenizer, batches, draw_evaluation_requests(batches.dataset, "valid", SCORED_REQUESTS, seed=3)
        )
        return ScorerTask(folder, tokenizer, sampler, answers, sheet, settings.batch)
    if name == "translator":
        from pigeon_cli.training.tasks.translator import TranslatorTask

        return TranslatorTask(folder, tokenizer, sampler, coded, sheet, settings.batch)
    if name == "language":
        from pigeon_cli.training.tasks.language import LanguageTask

        return LanguageTask(folder, tokenizer, sampler, coded, sheet, settings.batch)
    from pigeon_cli.training.tasks.reconstruct import ReconstructTask

    planted = encode_requests(
        tokenizer, batches, draw_evaluation_requests(batches.dataset, "valid", 64, seed=2, planted=1)
    )
    held_out = {"valid": coded, "planted": planted}
    requests = RequestSampler(sampler, options.target)
    out = None if options.out is None else ModelFolder(options.out)
    return ReconstructTask(
        folder, tokenizer, requests, held_out, sheet, settings.batch, settings.steps, out,
        options.gradient_checkpointing,
    )  # fmt: skip


def frozen_tokenizer(folder: ModelFolder, device: DeviceChoice) -> VisualTokenizer:
    """The trained visual tokenizer, on ``device``, without gradients."""
    return frozen(VisualTokenizer(folder.spec.tokenizer), folder, "tokenizer", device.device)


def text_processor(folder: ModelFolder) -> sentencepiece.SentencePieceProcessor:
    """The model's SentencePiece processor; :class:`InputError` when it was not trained yet."""
    if not folder.text_model.is_file():
        raise InputError(f"{folder.text_model} is missing", "run: pigeon train text")
    return sentencepiece.SentencePieceProcessor(model_file=str(folder.text_model))
