"""Perplexity: how well it tells real prose from imitations made of the same pages, for words and for pieces.

    python -m tests.bench.bench_perplexity --pages FILE.warc.gz [--language en]

Without arguments pages are those of the embedded sample site. Half of the prose is the reference; from the other
half shuffled words, boilerplate and keyword spam are made. The stage itself scores everything. AUC is the share
of (real, imitation) pairs in which the imitation has the higher perplexity.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import py3langid

from tasks.contracts.document import read_documents
from tasks.perplexity.reference import Reference
from tasks.perplexity.stage import VALUE, Params, run
from tests.bench.page_texts import page_texts
from tests.corpus import document, write_stage

LEAST_WORDS = 120
MOST_WORDS = 400


def main() -> None:
    """Print AUC by kind of imitation and by unit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, nargs="*", default=[])
    parser.add_argument("--language", default="en")
    asked = parser.parse_args()
    found = [page for path in asked.pages or [None] for page in page_texts(path and path.resolve())]
    pages = [(url, text, prose(text)) for url, text in found]
    pages = [page for page in pages if len(page[2].split()) >= LEAST_WORDS]
    pages = [page for page in pages if py3langid.classify(page[2])[0] == asked.language]
    random.Random(1).shuffle(pages)
    half = len(pages) // 2
    documents = [
        document(text, name=f"reference-{i}", host="reference.example") for i, (_, _, text) in enumerate(pages[:half])
    ]
    junk = boilerplate([text for _, text, _ in pages])
    spread = Counter(word for _, _, text in pages for word in set(re.findall(r"\w{4,}", text.lower())))
    for i, (_, _, text) in enumerate(pages[half:]):
        generator = random.Random(i)
        documents.append(document(text, name=f"prose-{i}"))
        documents.append(document(shuffled(text, generator), name=f"shuffled-{i}"))
        documents.append(document("\n".join(generator.sample(junk, 40)), name=f"boilerplate-{i}"))
        documents.append(document(spam(text, spread, generator), name=f"spam-{i}"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HEADWATER_STATE"] = f"{folder}/state"
        write_stage(Path("in"), [documents[k::4] for k in range(4)])
        print(f"{half:,} pages of reference, {len(pages) - half:,} pages to tell apart ({asked.language})")
        print(f"{'units':16s} {'shuffled':>9s} {'boilerplate':>12s} {'spam':>8s} {'all':>8s} {'CPU s':>7s}")
        settings: list[tuple[str, dict[str, Any]]] = [
            ("words", {"units": "words"}),
            ("pieces, 2,000", {"units": "pieces", "pieces": 2_000}),
            ("pieces, 4,000", {"units": "pieces", "pieces": 4_000}),
            ("pieces, 8,000", {"units": "pieces", "pieces": 8_000}),
            ("pieces, 16,000", {"units": "pieces", "pieces": 16_000}),
            ("pieces, pruned", {"units": "pieces", "prune": (0, 0, 1)}),
        ]
        for number, (name, more) in enumerate(settings):
            _row(name, Params(reference=Reference(hosts=("reference.example",)), max_percentile=100, **more), number)


def _row(name: str, params: Params, number: int) -> None:
    before = sum(os.times()[:4])
    output = Path(f"out-{number}")
    run(params=params, inputs={"dedup": Path("in")}, output=output)
    seconds = sum(os.times()[:4]) - before
    values: dict[str, list[float]] = {}
    for path in sorted(output.glob("part-*")):
        for one in read_documents(path):
            values.setdefault(one.record_id.split("-")[0], []).append(one.scores[VALUE])
    kinds = ("shuffled", "boilerplate", "spam")
    areas = [area(values["prose"], values[kind]) for kind in kinds]
    areas.append(area(values["prose"], [value for kind in kinds for value in values[kind]]))
    print(f"{name:16s} {areas[0]:9.4f} {areas[1]:12.4f} {areas[2]:8.4f} {areas[3]:8.4f} {seconds:7.1f}")


def area(real: list[float], imitations: list[float]) -> float:
    """Return the area under the ROC curve."""
    order = np.sort(np.array(real))
    below = np.searchsorted(order, imitations, side="left") + np.searchsorted(order, imitations, side="right")
    return float(below.sum() / 2 / len(real) / len(imitations))


def prose(text: str) -> str:
    """Return the beginning of what reads as running text: lines of twenty words and more that end as sentences do."""
    lines = [line.strip() for line in text.split("\n")]
    kept = [line for line in lines if len(line.split()) >= 20 and re.search(r"[.!?][\"”’')]?$", line)]
    taken: list[str] = []
    for line in kept:
        if sum(len(one.split()) for one in taken) < MOST_WORDS:
            taken.append(line)
    return "\n".join(taken)


def shuffled(text: str, generator: random.Random) -> str:
    """Return the same words in another order, in lines of the same length."""
    words = text.split()
    generator.shuffle(words)
    lines, at = [], 0
    for line in text.split("\n"):
        lines.append(" ".join(words[at : at + len(line.split())]))
        at += len(line.split())
    return "\n".join(lines)


def boilerplate(texts: list[str]) -> list[str]:
    """Return the short lines of the pages: menus, headings, links, dates, buttons."""
    lines = {line.strip() for text in texts for line in text.split("\n")}
    return sorted(line for line in lines if 1 <= len(line.split()) <= 8 and not line.endswith((".", "!", "?")))


def spam(text: str, spread: Counter[str], generator: random.Random) -> str:
    """Return the words that are the page's own, said again and again, as pages made for search engines do."""
    counts = Counter(re.findall(r"\w{4,}", text.lower()))
    keys = sorted(counts, key=lambda word: (-counts[word] / spread[word], word))[:15]
    lines = []
    for _ in range(12):
        phrases = [" ".join(generator.sample(keys, min(len(keys), generator.randint(1, 4)))) for _ in range(6)]
        lines.append(generator.choice([", ", " ", " | "]).join(phrases))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
