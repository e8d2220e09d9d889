"""Filters against datatrove's: the same four on the same texts, CPU seconds of one process, alternating.

    python -m tests.bench.bench_filters [--pages FILE.warc.gz | --texts FILE.jsonl] [--limit N] [--rounds N] [--learn N]

Prints one table of milliseconds a document and the ratio, rule by rule and for the four one after the other, and how
many decisions are equal, at the published thresholds and at those of params.yaml.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from datatrove.data import Document as Datum
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.utils.text import split_into_parts

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document
from tasks.filter.loading import rule_class
from tasks.filter.word_splitting import splitter
from tests.conftest import ROOT

BLOCKS: Mapping[str, Any] = {
    "gopher_repetition": GopherRepetitionFilter,
    "gopher_quality": GopherQualityFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}
Answer = tuple[str, str]
Judge = Callable[[str], Answer]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="a WARC file; its pages are extracted by trafilatura first")
    parser.add_argument("--texts", type=Path, help="a JSONL file with a text in each line's key `text`")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--learn", type=int, default=0, help="other texts that a process has seen before, not timed")
    asked = parser.parse_args()
    texts = load_texts(asked.pages, asked.texts, asked.limit + asked.learn)
    texts, seen = texts[: asked.limit], texts[asked.limit :]
    size = sum(map(len, texts)) / len(texts)
    sys.stdout.write(f"{len(texts)} texts, {size:,.0f} characters on average\n")
    for title, settings in (("published", {}), ("params.yaml", sample_settings())):
        sys.stdout.write(f"\n{title} thresholds\n")
        table(texts, seen, settings, asked.rounds)


def table(texts: Sequence[str], seen: Sequence[str], settings: Mapping[str, Mapping[str, Any]], rounds: int) -> None:
    """Print the four in a row and each rule alone, and the decisions that differ."""
    row = "{:<20}{:>14}{:>14}{:>9}{:>10}{:>9}\n"
    sys.stdout.write(row.format("rule", "datatrove ms", "headwater ms", "ratio", "equal", "dropped"))
    ours = {name: our_judge(name, settings.get(name, {})) for name in BLOCKS}
    theirs = {name: their_judge(name, settings.get(name, {})) for name in BLOCKS}
    lines = [("all four", list(theirs.values()), list(ours.values()))]
    lines += [(name, [theirs[name]], [ours[name]]) for name in BLOCKS]
    for name, peers, own in lines:
        seconds, answers = compared(texts, seen, peers, own, rounds)
        equal = sum(a == b for a, b in zip(*answers, strict=True)) / len(texts)
        dropped = sum(kind == "drop" for kind, _ in answers[1]) / len(texts)
        milliseconds = [1000 * s / len(texts) for s in seconds]
        sys.stdout.write(
            row.format(
                name,
                f"{milliseconds[0]:.3f}",
                f"{milliseconds[1]:.3f}",
                f"{seconds[0] / seconds[1]:.1f}",
                f"{equal:.3%}",
                f"{dropped:.1%}",
            )
        )
        differing = Counter(
            (a if a[0] == "drop" else "keep", b if b[0] == "drop" else "keep")
            for a, b in zip(*answers, strict=True)
            if a != b
        )
        sys.stdout.flush()
        for (a, b), number in differing.items():
            sys.stdout.write(f"    {number}: datatrove {a}, headwater {b}\n")


def compared(
    texts: Sequence[str], seen: Sequence[str], theirs: Sequence[Judge], ours: Sequence[Judge], rounds: int
) -> tuple[list[float], list[list[Answer]]]:
    """Return the CPU seconds of the fastest round of each and their answers; each round starts with `seen` learnt."""
    best = [float("inf")] * 2
    answers: list[list[Answer]] = [[], []]
    for _ in range(rounds):
        for index, judges in enumerate((theirs, ours)):
            splitter.cache_clear()
            split_into_parts.cache_clear()
            for text in seen if judges is ours else ():
                splitter("eng").words(text)
            splitter("eng")
            started = time.process_time()
            answers[index] = [in_a_row(judges, text) for text in texts]
            best[index] = min(best[index], time.process_time() - started)
    return best, answers


def in_a_row(judges: Sequence[Judge], text: str) -> Answer:
    """Return the first drop, or the text that is left."""
    for judge in judges:
        kind, what = judge(text)
        if kind == "drop":
            return kind, what
        text = what
    return "keep", text


def our_judge(name: str, settings: Mapping[str, Any]) -> Judge:
    """Return our rule as a function of a text."""
    rule: Any = rule_class(name)(**settings)

    def judge(text: str) -> Answer:
        answer = rule(Document(doc_id="1", url="", host="", record_id="1", source="bench", text=text))
        if isinstance(answer, Drop):
            return "drop", answer.rule
        return "keep", answer.text if isinstance(answer, Edit) else text

    return judge


def their_judge(name: str, settings: Mapping[str, Any]) -> Judge:
    """Return datatrove's block as a function of a text."""
    block = BLOCKS[name](**settings)

    def judge(text: str) -> Answer:
        datum = Datum(text=text, id="1")
        try:
            keep, reason = get_filter_result(block.filter(datum))
        except ZeroDivisionError:
            return "drop", "empty"
        return ("keep", datum.text) if keep else ("drop", str(reason).removeprefix("gopher_"))

    return judge


def sample_settings() -> dict[str, dict[str, Any]]:
    """Return the settings of the four rules in params.yaml."""
    rules = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["filter"]["rules"]
    return {name: settings or {} for rule in rules for name, settings in rule.items() if name in BLOCKS}


def load_texts(pages: Path | None, texts: Path | None, limit: int) -> list[str]:
    """Return the texts to judge: of a WARC's pages, of a JSONL file, or of installed packages' documentation."""
    found = _from_warc(pages) if pages else _from_jsonl(texts) if texts else _documentation()
    return [text for text, _ in zip(found, range(limit), strict=False)]


def _from_warc(path: Path) -> Iterator[str]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from trafilatura import extract

    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            try:
                text = extract(record.reader.read(), favor_recall=True, fast=True)
            except Exception:  # noqa: BLE001 - a page that cannot be read is no text to judge
                continue
            if text:
                yield text


def _from_jsonl(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)["text"]


def _documentation() -> Iterator[str]:
    distributions = sorted(importlib.metadata.distributions(), key=lambda found: str(found.metadata["Name"]))
    for distribution in distributions:
        text = str(distribution.read_text("METADATA") or "")
        for start in range(0, len(text), 4400):
            if len(text) - start > 500:
                yield text[start : start + 4400]


if __name__ == "__main__":
    main()
