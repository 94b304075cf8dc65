"""pigeon: personalized image generation from a history of liked images."""

from typing import Final

__version__: Final = "0.1.0"
