"""The folder that the stage tokenizer writes: its special tokens, and how every reader of documents loads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contracts.errors import InputError
from tasks.contracts.files import TOKENIZER_NAME

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS = "<|endoftext|>"
PADDING = "<|padding|>"
SPECIAL_TOKENS = (EOS, PADDING)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer for encoding documents: what looks like a special token in a text is encoded as text.

    Raises:
        InputError: the folder holds no usable tokenizer, or one without the end-of-sequence token.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_NAME
    try:
        tokenizer = Tokenizer.from_str(path.read_text())
    except Exception as error:
        raise InputError(
            "the tokenizer cannot be read", where=str(path), found=str(error), fix="run the stage tokenizer again"
        ) from error
    if tokenizer.token_to_id(EOS) is None:
        raise InputError("the tokenizer lacks its end-of-sequence token", where=str(path), expected=EOS)
    tokenizer.encode_special_tokens = True
    return tokenizer


def bytes_of_tokens(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each id of a byte-level tokenizer stands for; none for special tokens.

    Such a vocabulary writes each byte as a character: printable ones of Latin-1 as themselves, the others, in order, as
    the characters from U+0100 on (Radford et al. 2019).
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
    special = tokenizer.get_added_tokens_decoder()
    found = [b""] * tokenizer.get_vocab_size()
    for token, number in tokenizer.get_vocab().items():
        if number not in special:
            found[number] = bytes(byte_of[character] for character in token)
    return found
