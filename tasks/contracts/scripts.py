"""Scripts written without spaces between words: there, each character counts as a word.

White space does not say where their words end, and an n-gram of whole sentences would find nothing.
"""

from __future__ import annotations

from typing import Final

CHARACTER_RANGES: Final = (
    *((0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F)),  # marks, kana
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),  # Chinese characters
)
"""First and last code point of scripts of which a character is nearly a word: Japanese, Chinese."""
LETTER_RANGES: Final = (*((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),)
"""Those of scripts of which a word has several: Thai, Lao, Burmese, Khmer."""
NO_SPACE_SCRIPTS: Final = "".join(f"{chr(first)}-{chr(last)}" for first, last in (*LETTER_RANGES, *CHARACTER_RANGES))
"""All of them, to stand between the brackets of a regular expression."""
