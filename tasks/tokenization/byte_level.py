"""A byte-level BPE tokenizer: made with `tokenizers`, saved as Hugging Face's `transformers` reads it.

Byte-level, so that any text comes back exactly. No normaliser and no post-processor: a post-processor that adds
special tokens would put ids into the shards that nobody sees in the code.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.contracts.errors import InputError
from tasks.contracts.files import write_bytes, write_json

EOS = "<|endoftext|>"
PADDING = "<|padding|>"
SPECIAL_TOKENS = (EOS, PADDING)

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)

# As GPT-4's cl100k_base: contractions, letters with what precedes them, up to three digits, punctuation, line ends,
# other white space. Possessive quantifiers are plain here, as Oniguruma reads them otherwise.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn merges from `texts`; the vocabulary is smaller than asked for where the texts hold too few pairs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    named: dict[str, Any] = {"bos_token": EOS, "eos_token": EOS, "unk_token": EOS, "pad_token": PADDING}
    config: dict[str, Any] = {
        **named,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode() + b"\n")
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", named)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer for encoding documents: what looks like a special token in a text is encoded as text.

    Raises:
        InputError: the folder holds no usable tokenizer, or one without the end-of-sequence token.
    """
    path = folder / "tokenizer.json"
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
