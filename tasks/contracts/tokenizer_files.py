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
