"""A model of LaVIT-7B-v2's own sizes with random weights, as ``pigeon download`` leaves the published one.

    python -m tests.full_size.make_folder OUT [--layers N] [--alignment] [--seed S]

Names, keys and shapes are the published ones (issue 4); all weights are bfloat16 but those of the VAE, which is
published in float32. It takes 23 GB of disk, one tensor of memory at a time. ``--layers`` makes every stack so deep at
most and says so in ``spec.json``; ``--alignment`` adds ``OUT/alignment``, the form that stage 1 leaves.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.errors import OutputError, PigeonError
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.disk import readable, write_whole, writing
from pigeon_cli.weights.keymaps import KeyMap
from pigeon_cli.weights.official_spec import (
    BUNDLED_SPEC,
    LANGUAGE_CONFIG,
    LANGUAGE_FIELDS,
    OWN_SPEC,
    SCHEDULER_CONFIG,
    UNET_CONFIG,
    VAE_CONFIG,
)
from pigeon_cli.weights.published_alignment import LORA_SETTINGS
from pigeon_cli.weights.spec_file import read_spec, spec_text
from tests.full_size.stream import Shape, WeightsFile, write_random
from tests.keymaps.official_files import MANIFESTS, published_shapes
from tests.parity.golden import TOKENIZER

ENDING = ".safetensors"
LANGUAGE_SHARDS = (4.58, 4.86, 4.31)
"""Sizes of the published shards, in any unit."""
POSITION_DEVIATION = 4.0
SELECTOR = frozenset(f"token_predictor.out_conv.{layer}.weight" for layer in (0, 2, 4))
"""With weights that are merely random all patches are much alike, and GELU's outputs have a mean: an image would keep
all of its patches or a single one. Strong positions and rows of mean zero make it some of them, as it really is."""
ALIGNMENT = "alignment"
RESERVE = 64 << 20
"""Bytes that stay free, and more than what is no weights."""


def make_folder(out: Path, spec: ModelSpec, alignment: bool, seed: int = 0) -> dict[str, int]:
    """Write everything below ``out``; returns the bytes of every weights file.

    Raises :class:`OutputError` when ``out`` holds anything, or its disk too little.
    """
    files = [file for keymap in keymaps.MODEL_FILES for file in model_files(keymap, spec)]
    if alignment:
        files += [alignment_file(keymap, spec) for keymap in keymaps.ALIGNMENT_FILES]
    check_room(out, sum(file.bytes for file in files))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    written = {file.path: write_random(out, file, seed) for file in files}
    for path, content in settings(spec, alignment).items():
        _write_json(out / path, content)
    _write_json(out / "language_model" / f"pytorch_model{ENDING}.index.json", shard_index(spec))
    shutil.copytree(TOKENIZER, out / "language_model", dirs_exist_ok=True)
    if spec != read_spec(BUNDLED_SPEC):
        write_whole(out / OWN_SPEC, spec_text(spec).encode())
    return written


def check_room(out: Path, needed: int) -> None:
    """Raises :class:`OutputError` when ``out`` is not empty or ``needed`` bytes do not fit there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already", "name a new folder, or delete this one")
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed + RESERVE > free:
        raise OutputError(
            f"the model needs {readable(needed)} in {out}, where {readable(free)} are free",
            "free some space, name a folder on another disk, or make fewer --layers",
        )


def model_files(keymap: KeyMap, spec: ModelSpec) -> list[WeightsFile]:
    """The files of one published set; the language model's are its three shards."""
    stem, shapes = keymap.files[-1], published_shapes(keymap, spec)
    if keymap is keymaps.LANGUAGE:
        parts = split(shapes, LANGUAGE_SHARDS)
        names = (f"{stem}-{number:05}-of-{len(parts):05}{ENDING}" for number in range(1, len(parts) + 1))
        return [WeightsFile(name, part) for name, part in zip(names, parts, strict=True)]
    file = WeightsFile(stem + ENDING, shapes, torch.float32 if keymap is keymaps.VAE else torch.bfloat16)
    if keymap is keymaps.ENCODER:
        return [replace(file, deviations={"pos_embed": POSITION_DEVIATION})]
    return [replace(file, centred=SELECTOR) if keymap is keymaps.SELECTOR_MERGER_QUANTIZER else file]


def alignment_file(keymap: KeyMap, spec: ModelSpec) -> WeightsFile:
    """One set of a stage-1 checkpoint."""
    folder = f"{ALIGNMENT}/llama" if keymap is keymaps.LORA else ALIGNMENT
    return WeightsFile(f"{folder}/{keymap.files[0]}{ENDING}", published_shapes(keymap, spec))


def split(shapes: Mapping[str, Shape], sizes: Sequence[float]) -> list[dict[str, Shape]]:
    """Tensors in their order, in as many parts as there are ``sizes``, none of which a part exceeds but the last."""
    total = sum(map(prod, shapes.values()))
    ends = [total * end / sum(sizes) for end in itertools.accumulate(sizes)]
    parts: list[dict[str, Shape]] = [{} for _ in sizes]
    number = end = 0
    for key, shape in shapes.items():
        end += prod(shape)
        while number + 1 < len(sizes) and end > ends[number]:
            number += 1
        parts[number][key] = shape
    return parts


def shard_index(spec: ModelSpec) -> dict[str, object]:
    """The table of which shard of the language model holds which tensor."""
    shards = model_files(keymaps.LANGUAGE, spec)
    table = {key: Path(shard.path).name for shard in shards for key in shard.shapes}
    return {"metadata": {"total_size": sum(shard.bytes for shard in shards)}, "weight_map": table}


def settings(spec: ModelSpec, alignment: bool) -> dict[str, Mapping[str, Any]]:
    """Configurations by path, as transformers, diffusers and peft write theirs."""
    language = {theirs: getattr(spec.language, ours) for theirs, ours in LANGUAGE_FIELDS.items()}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": spec.vocabulary.pad}
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    found: dict[str, Mapping[str, Any]] = {
        LANGUAGE_CONFIG: {**llama, **language, **ids, "vocab_size": spec.vocabulary.size, "torch_dtype": "bfloat16"},
        "language_model/generation_config.json": ids,
        UNET_CONFIG: {"_class_name": "UNet2DConditionModel", **spec.diffusion.unet},
        VAE_CONFIG: {"_class_name": "AutoencoderKL", **spec.diffusion.vae},
        SCHEDULER_CONFIG: {"_class_name": "DDIMScheduler", **spec.diffusion.scheduler},
    }
    if alignment:
        fields = json.loads((MANIFESTS / "adapter_config_fields.json").read_text(encoding="utf-8"))
        del fields["note"]
        lora = spec.language
        fields |= {"r": lora.lora_rank, "lora_alpha": lora.lora_alpha, "target_modules": list(lora.lora_targets)}
        found[f"{ALIGNMENT}/llama/{LORA_SETTINGS}"] = fields
    return found


def shallow(spec: ModelSpec, layers: int) -> ModelSpec:
    """``spec`` with at most ``layers`` layers in every stack; widths stay."""
    tokenizer, unet = spec.tokenizer, spec.diffusion.unet
    transformers = [min(layers, depth) for depth in unet["transformer_layers_per_block"]]
    return replace(
        spec,
        tokenizer=replace(
            tokenizer,
            encoder_depth=min(layers, tokenizer.encoder_depth),
            merger_depth=min(layers, tokenizer.merger_depth),
        ),
        decoder=replace(spec.decoder, depth=min(layers, spec.decoder.depth)),
        mask_generator=replace(spec.mask_generator, layers=min(layers, spec.mask_generator.layers)),
        language=replace(spec.language, layers=min(layers, spec.language.layers)),
        diffusion=replace(
            spec.diffusion,
            unet={**_few(unet, layers), "transformer_layers_per_block": transformers},
            vae=_few(spec.diffusion.vae, layers),
        ),
    )


def _few(arguments: Mapping[str, Any], layers: int) -> dict[str, Any]:
    return {**arguments, "layers_per_block": min(layers, arguments["layers_per_block"])}


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=2).encode() + b"\n")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("--layers", type=int, help="at most so many layers in every stack")
    parser.add_argument("--alignment", action="store_true", help="also LoRA, mask generator and adapter")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    spec = read_spec(BUNDLED_SPEC)
    try:
        if arguments.layers is not None:
            spec = shallow(spec, arguments.layers)
        written = make_folder(arguments.out, spec, arguments.alignment, arguments.seed)
    except PigeonError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    for path, size in written.items():
        print(f"{size:>14,}  {path}")
    print(f"{sum(written.values()):>14,}  in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
