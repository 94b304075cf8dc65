"""PNG bytes that say how they were made: text chunks that other tools read, and the IPTC mark of a made image.

The keys are those of DESIGN.md section 6; none of them carries a path, that of a model folder included.
"""

from __future__ import annotations

import io
import json
from typing import Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pigeon_cli import __version__
from pigeon_cli.core.records import Candidate, RunReport, plain
from pigeon_cli.report.json_report import tidy

XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def png_bytes(image: Image.Image, report: RunReport, rank: int, metadata: bool = True) -> bytes:
    """``image`` as PNG with the metadata of the candidate of ``rank``; the same input gives the same bytes.

    Without ``metadata`` nothing is told but that a model made the image.
    """
    info = PngInfo()
    if metadata:
        candidate = next((entry for entry in report.candidates if entry.rank == rank), None)
        info.add_text("parameters", _printable(parameters(image, report)))
        info.add_text("pigeon", json.dumps(settings(report, candidate), ensure_ascii=True))
    info.add_itxt("XML:com.adobe.xmp", XMP)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def parameters(image: Image.Image, report: RunReport) -> str:
    """The line of settings that image browsers show: the words, then ``name: value`` pairs."""
    chosen = report.settings
    pairs = {
        "Steps": chosen.get("steps"),
        "CFG scale": chosen.get("guidance"),
        "Seed": chosen.get("seed"),
        "Size": f"{image.width}x{image.height}",
        "Model": report.model.name,
        "Version": f"pigeon {__version__}",
    }
    words = report.prompt or (report.reference.words if report.reference else "")
    return f"{words}\n" + ", ".join(f"{name}: {value}" for name, value in pairs.items() if value is not None)


def settings(report: RunReport, candidate: Candidate | None) -> dict[str, Any]:
    """What makes this image again, by content hashes instead of paths."""
    reference = report.reference
    record = {
        "version": __version__,
        "model": report.model,
        "settings": {name: value for name, value in report.settings.items() if name not in ("model", "alignment")},
        "history": [image.sha256 for image in report.history if image.status == "used"],
        "reference": {"sha256": reference.sha256, "words": reference.words} if reference else None,
        "prompt": report.prompt,
    }
    if candidate:
        record |= {
            "rank": candidate.rank,
            "dial": candidate.dial,
            "sample": candidate.sample,
            "score": candidate.score,
            "score_parts": candidate.score_parts,
        }
    entries: dict[str, Any] = tidy(plain(record))
    return entries


def _printable(text: str) -> str:
    """Text chunks hold no NUL and no undecodable bytes."""
    return text.replace("\0", " ").encode("utf-8", errors="replace").decode("utf-8")
