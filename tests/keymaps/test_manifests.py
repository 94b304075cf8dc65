"""Every key of every manifest has one place, and that place has the manifest's shape at full width."""

from __future__ import annotations

import ast
import json
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from pigeon_cli.core.configs import ModelSpec
from pigeon_cli.core.vocabulary import RELEASED_VOCABULARY
from pigeon_cli.weights import keymaps
from pigeon_cli.weights.keymaps import Ignored, KeyMap, Target
from pigeon_cli.weights.official_spec import BUNDLED_SPEC, SCHEDULER_FIELDS
from pigeon_cli.weights.spec_file import read_spec
from tests.keymaps.official_files import BUILDERS, MANIFEST_OF, MANIFESTS, lora_shapes, manifest

WHOLE_TOKENIZER = "dynamic_visual_tokenizer_full"
UNUSED = {
    "tokenizer_decoder.bin": "visual_tokenizer/tokenizer_decoder",
    "visual_weight.bin": "language_model/visual_weight",
}
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_spec(BUNDLED_SPEC)


@pytest.fixture(scope="module")
def full_width(spec: ModelSpec) -> dict[str, Shapes]:
    """Keys and shapes of every part of the 7B model; no memory is taken."""
    shapes: dict[str, Shapes] = {"lora": dict(lora_shapes(spec.language))}
    with torch.device("meta"):
        for part, build in BUILDERS.items():
            shapes[part] = {key: tuple(tensor.shape) for key, tensor in build(spec).state_dict().items()}
    return shapes


def placed(keymap: KeyMap, name: str) -> Shapes:
    """Our keys and the shapes of what is not ignored; fails where two keys have one place or one has none."""
    found: Shapes = {}
    for key, shape in manifest(name).items():
        place = keymap.place(key)
        if isinstance(place, Ignored):
            assert place.reason
            continue
        assert isinstance(place, Target), f"{key} of {name} has no place"
        assert place.key not in found, f"{place.key} is filled twice"
        assert keymap.published(place.key) == key
        found[place.key] = shape
    return found


def test_every_manifest_is_looked_at() -> None:
    names = {path.stem for path in MANIFESTS.iterdir()}
    assert names == {*MANIFEST_OF, *UNUSED, WHOLE_TOKENIZER, "adapter_config_fields"}


@pytest.mark.parametrize("part", ["decoder", "language", "mask_generator", "adapter", "lora"])
def test_parts_of_one_file_take_exactly_its_keys(full_width: dict[str, Shapes], part: str) -> None:
    name, keymap = next((name, entry) for name, entry in MANIFEST_OF.items() if entry.part == part)
    assert placed(keymap, name) == full_width[part]
    assert len(manifest(name)) == len(full_width[part])


def test_the_tokenizer_takes_exactly_the_keys_of_its_two_files(full_width: dict[str, Shapes]) -> None:
    encoder = placed(keymaps.ENCODER, "eva_vitg_psz14.bin")
    rest = placed(keymaps.SELECTOR_MERGER_QUANTIZER, "tokenizer_encoder.bin")
    assert not encoder.keys() & rest.keys()
    assert encoder | rest == full_width["tokenizer"]
    assert len(manifest("eva_vitg_psz14.bin")) - len(encoder) == 4, "only the final norm and head are left out"


def test_a_file_of_the_whole_tokenizer_gives_the_same_places_and_ignores_the_rest() -> None:
    rest = keymaps.SELECTOR_MERGER_QUANTIZER
    left_out = {key for key in manifest(WHOLE_TOKENIZER) if isinstance(rest.place(key), Ignored)}
    assert {key.partition(".")[0] for key in left_out} == {"encoder", "vit_proj"}
    assert placed(rest, WHOLE_TOKENIZER) == placed(rest, "tokenizer_encoder.bin")
    names = {key.removeprefix("encoder.") for key in left_out if key.startswith("encoder.")}
    assert names == manifest("eva_vitg_psz14.bin").keys()


@pytest.mark.parametrize("name", UNUSED)
def test_files_that_are_not_read_have_a_reason(name: str) -> None:
    assert keymaps.UNUSED_FILES[UNUSED[name]]
    assert all(UNUSED[name] not in entry.files for entry in keymaps.MODEL_FILES)


@pytest.mark.parametrize("keymap", [*keymaps.MODEL_FILES, *keymaps.ALIGNMENT_FILES], ids=lambda entry: entry.files[0])
def test_no_prefix_is_the_start_of_another(keymap: KeyMap) -> None:
    for first in keymap.prefixes:
        assert [name for name in keymap.prefixes if name.startswith(first)] == [first]


def test_the_codebook_s_training_statistics_and_old_rotary_tables_are_ignored() -> None:
    assert isinstance(keymaps.SELECTOR_MERGER_QUANTIZER.place("quantize.embedding.cluster_size"), Ignored)
    assert isinstance(keymaps.LANGUAGE.place("model.layers.31.self_attn.rotary_emb.inv_freq"), Ignored)
    assert keymaps.SELECTOR_MERGER_QUANTIZER.place("something.else") is None


@pytest.mark.parametrize(
    ("former", "name"), [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")]
)
def test_former_names_of_the_vae_s_attention_are_known(full_width: dict[str, Shapes], former: str, name: str) -> None:
    place = keymaps.VAE.place(f"decoder.mid_block.attentions.0.{former}.weight")
    assert place == Target("vae", f"decoder.mid_block.attentions.0.{name}.weight")
    assert place.key in full_width["vae"]


@pytest.mark.parametrize(
    ("parts", "element_bytes", "published_gigabytes"),
    [(("unet",), 2, 5.14), (("vae",), 4, 0.335), (("language",), 2, 4.58 + 4.86 + 4.31), (("decoder",), 2, 0.83)],
)
def test_sizes_agree_with_the_published_files(
    full_width: dict[str, Shapes], parts: tuple[str, ...], element_bytes: int, published_gigabytes: float
) -> None:
    # UNet and VAE have no manifest: their sizes on the hub are all that is known of them.
    elements = sum(prod(shape) for part in parts for shape in full_width[part].values())
    assert elements * element_bytes / 1e9 == pytest.approx(published_gigabytes, rel=3e-3)


def test_the_specification_agrees_with_itself_and_the_published_settings(spec: ModelSpec) -> None:
    fields = json.loads((MANIFESTS / "adapter_config_fields.json").read_text(encoding="utf-8"))
    language = spec.language
    assert (language.lora_rank, language.lora_alpha) == (fields["r"], fields["lora_alpha"])
    assert list(language.lora_targets) == fields["target_modules"]
    assert language.lora_dropout == fields["lora_dropout"]
    assert spec.vocabulary == RELEASED_VOCABULARY
    assert spec.diffusion.unet["cross_attention_dim"] == spec.decoder.context_width == spec.adapter.input_width
    assert spec.diffusion.image_size == 8 * spec.diffusion.unet["sample_size"]


def test_scheduler_fields_are_those_of_the_scheduler() -> None:
    assert set(DDIMScheduler.__init__.__annotations__) - {"return"} == SCHEDULER_FIELDS


def test_the_maps_need_nothing_but_python() -> None:
    tree = ast.parse(Path(keymaps.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)
