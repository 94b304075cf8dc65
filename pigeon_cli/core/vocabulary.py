"""The one owner of token id ranges (DESIGN.md section 2, "Vocabulary")."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Text ids, then image start, image end, then one id per visual code.

    ``image_end`` doubles as the placeholder of the reference embedding inside prompt text.
    """

    text_size: int
    code_count: int
    pad: int = 2
    """Padding id; equal to the end-of-sequence id, as in the released model."""

    @property
    def image_start(self) -> int:
        return self.text_size

    @property
    def image_end(self) -> int:
        return self.text_size + 1

    @property
    def reference_placeholder(self) -> int:
        return self.image_end

    @property
    def first_code(self) -> int:
        return self.text_size + 2

    @property
    def size(self) -> int:
        return self.first_code + self.code_count

    def to_id(self, code: int) -> int:
        """Token id of a visual code; raises ``ValueError`` outside ``0..code_count-1``."""
        if not 0 <= code < self.code_count:
            raise ValueError(f"visual code {code} is outside 0..{self.code_count - 1}")
        return code + self.first_code

    def to_code(self, token_id: int) -> int:
        """Visual code of a token id; raises ``ValueError`` for text and image markers."""
        if not self.is_code(token_id):
            raise ValueError(f"token id {token_id} is not a visual code")
        return token_id - self.first_code

    def is_code(self, token_id: int) -> bool:
        return self.first_code <= token_id < self.size


RELEASED_VOCABULARY = Vocabulary(text_size=32000, code_count=16384)
