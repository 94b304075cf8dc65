"""Self-contained pages: templates that escape, images as data URIs, and a policy that lets nothing else run.

No page asks a server for anything: the content security policy names the page's own style and script by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

PIXEL_SIDE: Final = 192
"""Pictures up to this side keep every pixel; larger ones are compressed."""
WEBP_QUALITY: Final = 90


def render(name: str, style: str, script: str | None = None, **values: Any) -> bytes:
    """The template ``pages/NAME`` with its style sheet and script; every value is escaped but :class:`Markup`."""
    css, js = _page_file(style), _page_file(script) if script else None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    own = {"style": Markup(css), "policy": _policy(css, js)} | ({"script": Markup(js)} if js else {})
    return environment.from_string(_page_file(name)).render(**own, **values).encode("utf-8", errors="replace")


def inline_json(value: Any) -> Markup:
    """JSON for a script element: no ``<`` can end it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def picture_uri(image: Image.Image, side: int) -> str:
    """A data URI of an RGB image, made smaller to fit ``side`` pixels; nothing of its file or metadata is kept."""
    plain = Image.new("RGB", image.size)
    plain.paste(image)
    plain.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(plain.size) <= PIXEL_SIDE:
        plain.save(buffer, format="PNG")
        kind = "png"
    else:
        plain.save(buffer, format="WEBP", quality=WEBP_QUALITY)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _policy(style: str, script: str | None) -> str:
    scripts = f" script-src '{_hash(script)}';" if script else ""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}';{scripts} base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _page_file(name: str) -> str:
    return files("pigeon_cli.report").joinpath("pages", name).read_text("utf-8")
