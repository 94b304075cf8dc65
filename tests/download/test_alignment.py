"""Published alignments are found in every form in which a trainer leaves them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pigeon_cli.core.errors import WeightsError
from pigeon_cli.weights import published_alignment
from pigeon_cli.weights.alignment import choose_alignment
from pigeon_cli.weights.published_alignment import find_alignment
from pigeon_cli.weights.sources import Access
from tests.download.conftest import Downloader, tiny_catalog

STAGE_1 = ["mask_generator/pytorch_model.bin", "adapter/pytorch_model.bin"]
LORA = ["llama/adapter_config.json", "llama/adapter_model.bin"]
CONFIG = b'{"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}'
POLICY = ["llama/policy/adapter_config.json", "llama/policy/adapter_model.safetensors"]
REST = ["optimizer.pt", "training_args.bin", "trainer_state.json", "llama/README.md"]


def below(folder: str, names: list[str]) -> list[str]:
    return [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize(
    ("names", "lora"),
    [
        ([*STAGE_1, *LORA, *REST], "llama/adapter_model.bin"),
        (below("checkpoint-7", [*STAGE_1, *LORA, *REST]), "checkpoint-7/llama/adapter_model.bin"),
        (below("a/checkpoint-7", [*STAGE_1, *LORA, *POLICY]), "a/checkpoint-7/llama/policy/adapter_model.safetensors"),
        (
            [*below("sft/checkpoint-7", [*STAGE_1, *LORA]), *below("dpo/checkpoint-2", POLICY)],
            "dpo/checkpoint-2/llama/policy/adapter_model.safetensors",
        ),
        (
            [*below("sft/checkpoint-7", [*STAGE_1, *LORA]), *below("dpo/checkpoint-2", LORA)],
            "dpo/checkpoint-2/llama/adapter_model.bin",
        ),
        (
            [*below("Sticker/sft", [*STAGE_1, *LORA]), *below("poster/sft", [*STAGE_1, *LORA])],
            "Sticker/sft/llama/adapter_model.bin",
        ),
    ],
)
def test_the_pieces_are_found(names: list[str], lora: str) -> None:
    chosen = choose_alignment(names, "sticker")
    ending = lora.rpartition("/")[2]
    assert sorted(chosen) == sorted([*STAGE_1, f"llama/{ending}", "llama/adapter_config.json"])
    assert chosen[f"llama/{ending}"] == lora
    assert chosen["llama/adapter_config.json"] == lora.replace(ending, "adapter_config.json")


def test_of_two_formats_the_one_that_is_no_pickle_is_taken() -> None:
    names = [*STAGE_1, "adapter/model.safetensors", *LORA]
    assert choose_alignment(names, "sticker")["adapter/model.safetensors"] == "adapter/model.safetensors"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([*STAGE_1], "no llama/"),
        ([*LORA, "adapter/model.safetensors"], "no mask_generator/"),
        ([*STAGE_1, "llama/adapter_model.bin"], "lacks llama/adapter_config.json"),
        ([*below("checkpoint-1", [*STAGE_1, *LORA]), *below("checkpoint-2", [*STAGE_1, *LORA])], "several"),
    ],
)
def test_what_lacks_or_is_ambiguous_is_said(names: list[str], says: str) -> None:
    with pytest.raises(WeightsError, match=says) as caught:
        choose_alignment(names, "sticker")
    assert "--source" in caught.value.hint


def saved(table: dict[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(table, stream)
    return stream.getvalue()


@pytest.fixture
def published(tmp_path: Path, download: Downloader) -> Path:
    """A checkpoint of stage 1 as pickles, each with one tensor named after its file; the source of ``download``."""
    folder = tmp_path / "published"
    for name in [*STAGE_1, *LORA, *REST]:
        path = folder / "checkpoint-7" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved({f"of.{path.parent.name}": torch.ones(2)}) if name.endswith(".bin") else CONFIG)
    download.catalog = tiny_catalog(source=str(folder), alignment="sticker")
    download.access = Access(offline=True)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_local_folder_is_read_and_left_alone(download: Downloader, published: Path) -> None:
    before = contents(published)
    manifest = download()
    assert set(contents(download.folder.path)) == {"manifest.json", "alignment.safetensors", "pigeon.json"}
    assert set(load_file(download.folder.path / "alignment.safetensors")) == {
        "mask_generator.of.mask_generator", "adapter.of.adapter", "lora.of.llama",
    }  # fmt: skip
    assert {origin.path for file in manifest.files for origin in file.origins} == set(
        below("checkpoint-7", [*STAGE_1, *LORA])
    )
    assert find_alignment(download.folder.path).lora.rank == 2
    assert contents(published) == before


def test_a_run_that_ends_before_the_pieces_are_put_together_is_finished_by_the_next(
    download: Downloader, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(published_alignment, "pack", interrupt)
        download()
    assert download.folder.state == "incomplete"
    assert {file.state for file in download.plan().parts[0].files} == {"there"}
    download()
    assert set(contents(download.folder.path)) == {"manifest.json", "alignment.safetensors", "pigeon.json"}


def test_a_run_that_ends_before_the_manifest_fetches_no_piece_again(
    download: Downloader, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pigeon_cli.weights.download.complete", interrupt)
        download()
    assert {file.state for file in download.plan().parts[0].files} == {"there"}
    download()
    assert set(contents(download.folder.path)) == {"manifest.json", "alignment.safetensors", "pigeon.json"}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
