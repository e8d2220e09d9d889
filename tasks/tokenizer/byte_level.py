"""A byte-level BPE tokenizer: made with `tokenizers`, saved as Hugging Face's `transformers` reads it.

Byte-level, so that any text comes back exactly. No normaliser and no post-processor: a post-processor that adds
special tokens would put ids into the shards that nobody sees in the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.files import SPECIAL_TOKENS_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME
from tasks.contracts.tokenizer_files import EOS, PADDING, SPECIAL_TOKENS

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)

PreTokenization = Literal["gpt4", "gpt2"]

# How text is cut before merges are learnt; no merge goes across a cut. Both are written from the descriptions of
# those tokenizers, in the Oniguruma syntax that `tokenizers` reads. Marks count as letters, so that an accent or a
# vowel sign of Hindi or Thai is never cut off. The last two parts leave the last space before a word to that word.
_WORD = r"[\p{L}\p{M}]+"
_REST = (r"\s+(?!\S)", r"\s+")
PATTERNS: Mapping[PreTokenization, str] = {
    "gpt4": "|".join(
        (
            r"'(?i:[sdmt]|ll|ve|re)",  # contractions in either case
            rf"[^\p{{L}}\p{{M}}\p{{N}}\r\n]?{_WORD}",  # a word with the one character before it
            r"\p{N}{1,3}",  # numbers in groups of three digits, so that any number is made of few tokens
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",  # punctuation with the space before and the line ends after it
            r"\s*[\r\n]+",  # line ends with the white space before them: the indentation after them stays apart
            *_REST,
        )
    ),
    "gpt2": "|".join(
        (
            r"'(?:[sdmt]|ll|ve|re)",
            rf" ?{_WORD}",
            r" ?\p{N}+",
            r" ?[^\s\p{L}\p{M}\p{N}]+",
            *_REST,
        )
    ),
}


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    pre_tokenization: PreTokenization = "gpt4",
    special_tokens: Sequence[str] = (),
) -> Tokenizer:
    """Learn merges from `texts`; the vocabulary is smaller than asked for where the texts hold too few pairs.

    Args:
        special_tokens: more of them, which get the ids after end-of-sequence and padding.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pre_tokenization]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIAL_TOKENS, *special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, special_tokens: Sequence[str] = ()) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    named: dict[str, Any] = {"bos_token": EOS, "eos_token": EOS, "unk_token": EOS, "pad_token": PADDING}
    if special_tokens:
        named["additional_special_tokens"] = list(special_tokens)
    config: dict[str, Any] = {
        **named,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    write_bytes(folder / TOKENIZER_NAME, tokenizer.to_str(pretty=True).encode() + b"\n")
    write_json(folder / TOKENIZER_CONFIG_NAME, config)
    write_json(folder / SPECIAL_TOKENS_NAME, named)
