"""Whether a folder in the published layout is whole: ``python -m tests.full_size.check_folder DIR``.

Loads every part strictly, one at a time and mapped, so that nothing but the headers is read; prints bytes per part.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pigeon_cli.core.errors import PigeonError, WeightsError
from pigeon_cli.weights.official import OfficialFolder
from pigeon_cli.weights.published_alignment import find_alignment
from tests.keymaps.official_files import LOADERS, loaded

ALIGNED = ("mask_generator", "adapter", "lora")
"""Parts that only an alignment has."""


def part_bytes(path: Path, alignment: bool) -> Iterator[tuple[str, int]]:
    """Every part with the bytes of its tensors; raises :class:`WeightsError` for the first thing that is wrong.

    ``alignment`` tells whether there has to be one, in ``path`` or below.
    """
    folder = OfficialFolder(path, find_alignment(path) if alignment else None)
    if missing := folder.missing():
        raise WeightsError(f"{path} lacks {', '.join(missing)}", "make it again")
    for part in LOADERS:
        if alignment or part not in ALIGNED:
            # What no file holds, the rotary frequencies, is not part of the state.
            yield part, sum(tensor.nbytes for tensor in loaded(folder, part).state_dict().values())


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alignment", action="store_true", help="an alignment has to be there, too")
    arguments = parser.parse_args()
    try:
        for part, size in part_bytes(arguments.folder, arguments.alignment):
            print(f"{size:>14,}  {part}")
    except PigeonError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
