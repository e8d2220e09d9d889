"""Tokenizer: bytes a token on texts that it has not seen, by vocabulary size and pre-tokenisation.

    python -m tests.bench.bench_tokenizer --pages FILE.warc.gz

Without arguments pages are those of the embedded sample site. Figures published for GPT-2's tokenizer (50,257
entries) are for other texts, so none stands beside these: the texts, or its vocabulary, would have to be at hand.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from tasks.tokenization.byte_level import PATTERNS, train_tokenizer
from tests.bench.page_texts import page_texts


def main() -> None:
    """Print bytes a token."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, nargs="*", default=[])
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
            tokens = [sum(len(e.ids) for e in tokenizer.encode_batch_fast(some)) for some in (unseen, english)]
            per_token = f"{size / tokens[0]:12.3f} {ascii_size / max(tokens[1], 1):11.3f}"
            print(f"{kind:8s} {tokenizer.get_vocab_size():10,d} {per_token} {seconds:16.1f}")
    print("GPT-2 (50,257 entries): no figure for these texts, as its vocabulary is not at hand offline")


if __name__ == "__main__":
    main()
