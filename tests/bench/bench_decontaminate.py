# ruff: noqa: SIM905
"""Decontamination: recall of planted leaks by class, false positives on clean pages, and microseconds a page.

    python -m tests.bench.bench_decontaminate --pages FILE.warc.gz --benchmarks a.jsonl b.jsonl …

Without arguments pages are those of the embedded sample site, and the benchmark is made up of their vocabulary.
Leaks are planted into real pages, the whole stage runs on them, and its ledger is compared with what was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.document import read_documents
from tasks.contracts.ledger import read_ledger
from tasks.decontaminate.hashed_words import split, split_with_words
from tasks.decontaminate.ngram_index import IndexSettings, read_index, write_index
from tasks.decontaminate.protected_items import ItemText, benchmark_texts
from tasks.decontaminate.stage import Params, run
from tests.bench.page_texts import about_equal_pages, page_texts
from tests.corpus import document, write_stage

CLASSES = (
    *("verbatim", "case, punctuation", "question only", "answer apart", "short items", "over lines"),
    *("paraphrased", "translated"),
)
SYNONYMS = dict(
    pair.split("/")
    for pair in (
        "the/this a/one an/one is/remains are/remain was/had_been of/from in/within on/upon to/towards and/plus "
        "for/regarding with/using which/what that/which how/in_what_way many/numerous what/which if/supposing "
        "he/the_man she/the_woman it/this_thing they/those_people his/that_man's her/that_woman's will/shall "
        "can/may does/might has/owns have/own each/every all/every more/additional most/nearly_all people/persons "
        "from/out_of by/through at/near as/like or/alternatively not/hardly when/whenever"
    ).split()
)
GERMAN = dict(
    pair.split("/")
    for pair in (
        "the/der a/ein an/eine is/ist are/sind was/war of/von in/im on/auf to/zu and/und for/für with/mit which/welche "
        "that/dass how/wie many/viele what/was if/wenn he/er she/sie it/es they/sie his/sein her/ihr will/wird "
        "can/kann does/tut has/hat have/haben each/jeder all/alle more/mehr most/meisten people/Leute from/aus "
        "by/durch at/bei as/als or/oder not/nicht when/wann day/Tag water/Wasser year/Jahr time/Zeit house/Haus "
        "one/eins two/zwei three/drei four/vier five/fünf"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Leak:
    """What was planted into one page, and from which item."""

    kind: str
    item: str
    text: str


def main() -> None:
    """Print recall by class, false positives and speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, nargs="*", default=[])
    parser.add_argument("--benchmarks", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=10_000, help="pages")
    parser.add_argument("--leaks", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100_000, help="indexed items for the speed")
    asked = parser.parse_args()
    asked.pages = [path.resolve() for path in asked.pages]
    benchmarks = [path.resolve() for path in asked.benchmarks]
    texts = [text for path in asked.pages or [None] for _, text in page_texts(path)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HEADWATER_STATE"] = f"{folder}/state"
        if not benchmarks:
            benchmarks = [_made_up_benchmark(texts, Path(folder) / "made_up_test.jsonl")]
        _planted(texts, benchmarks, asked.count, asked.leaks)
        _speed(texts, benchmarks, asked.items, Path(folder))


def _planted(texts: list[str], benchmarks: list[Path], count: int, leaks: int) -> None:
    generator = random.Random(7)
    size = 4000
    while len(pages := about_equal_pages(texts, size)) < count and size > 1000:
        size -= 500
    generator.shuffle(pages)
    pages = pages[:count]
    chosen = plan_leaks(benchmarks, leaks, generator)
    where = generator.sample(range(len(pages)), len(chosen))
    planted = dict(zip(where, chosen, strict=True))
    documents = [
        document(_plant(text, planted[i].text, generator) if i in planted else text, name=str(i))
        for i, text in enumerate(pages)
    ]
    write_stage(Path("in"), [documents[k::4] for k in range(4)])
    params = Params(benchmarks=tuple(map(str, benchmarks)))
    started = time.process_time()
    manifest = run(params=params, inputs={"holdout": Path("in")}, output=Path("out"))
    seconds = time.process_time() - started
    named: dict[str, set[str]] = {}
    details: dict[str, str] = {}
    for path in sorted(Path("out/dropped").glob("*.parquet")):
        for row in read_ledger(path):
            assert row.record_id is not None
            assert row.detail is not None
            named.setdefault(row.record_id, set()).add(_item_of(row.detail))
            details.setdefault(row.record_id, row.detail)
    kept = {d.record_id: d.text for p in sorted(Path("out").glob("part-*")) for d in read_documents(p)}
    print(f"{len(pages):,} pages of about {size} characters, {len(chosen):,} leaks, whole stage {seconds:.1f} CPU s")
    print(f"{'class':20s} {'planted':>8s} {'removed':>8s} {'item named':>11s}")
    notes: list[str] = []
    for kind in CLASSES:
        of_kind = [i for i in planted if planted[i].kind == kind]
        removed = [i for i in of_kind if str(i) in named and not _words_in(planted[i].text, kept.get(str(i), ""))]
        for i in sorted(set(of_kind) - set(removed))[:3] if kind in CLASSES[:6] else []:
            notes.append(f"  left: {kind}, {planted[i].item}: {planted[i].text[:1500]!r}")
        right = [i for i in of_kind if planted[i].item in named.get(str(i), ())]
        share = [100 * len(n) / max(len(of_kind), 1) for n in (removed, right)]
        print(f"{kind:20s} {len(of_kind):8d} {share[0]:7.1f}% {share[1]:10.1f}%")
    print("\n".join(notes))
    clean = [i for i in range(len(pages)) if i not in planted]
    false = [i for i in clean if str(i) in named]
    print(f"false positives: {len(false)} of {len(clean):,} clean pages = {100 * len(false) / len(clean):.3f} %")
    for i in false[:12]:
        print("  ", details[str(i)][:170])
    print(f"manifest: {manifest.counts.in_} in, {manifest.counts.out} out, {manifest.counts.dropped}")


def plan_leaks(benchmarks: list[Path], count: int, generator: random.Random) -> list[Leak]:
    """Choose items for each class, each item once, and give each leak its form."""
    fields: dict[tuple[str, str], dict[str, list[str]]] = {}
    for path in benchmarks:
        for one in benchmark_texts(path):
            fields.setdefault((one.task, one.item), {}).setdefault(one.field, []).append(one.text)
    items = sorted(fields)
    generator.shuffle(items)
    each = count // len(CLASSES)
    got: Counter[str] = Counter()
    leaks: list[Leak] = []
    for task, item in items:
        texts = {name: values for name, values in fields[task, item].items() if not name.endswith("and answers")}
        for kind in sorted(CLASSES, key=lambda kind: got[kind]):
            text = _leak(kind, texts, generator) if got[kind] < each else None
            if text is not None:
                got[kind] += 1
                leaks.append(Leak(kind, f"{task}/{item}", text))
                break
    return leaks


def _leak(kind: str, fields: dict[str, list[str]], generator: random.Random) -> str | None:
    """Return an item's text in the form of a class; None where the item has no such text."""
    asked = [
        v[0] for name, v in fields.items() if re.search("question|query|ctx|goal|context|input|prompt", name, re.I)
    ]
    told = [t for name, v in fields.items() if re.search("answer|choice|ending|sol|target", name, re.I) for t in v]
    if not asked:
        return None
    question, words = asked[0], len(split(asked[0]).hashes)
    answers = [t for t in told if _long_enough(t)]
    if kind == "short items":
        question = re.sub(r"^(Question|Q): ?", "", question)
        words_ = len(split(question).hashes)
        return question if words_ < 13 and _long_enough(question) else None
    if kind == "answer apart":
        return generator.choice(answers) if answers else None
    if words < 13:
        return None
    if kind == "question only":
        return question if told else None
    if kind == "verbatim":
        return "\n".join([question, *told])
    if kind == "case, punctuation":
        changed = re.sub(r"[,;:.!?]", lambda _: generator.choice(["", " -", " …", "!", " ,"]), question)
        return generator.choice([changed.upper(), changed.lower(), changed.title(), changed.replace("'", "’")])
    if kind == "over lines":
        return re.sub(r" ", lambda _: generator.choice([" ", " ", " ", "\n", "\n  ", " \t"]), question)
    table = SYNONYMS if kind == "paraphrased" else GERMAN
    return " ".join(table.get(word.lower(), word).replace("_", " ") for word in question.split())


def _long_enough(text: str) -> bool:
    words = split_with_words(text)[1]
    return len(words) >= 8 and len("".join(words)) >= 35


def _plant(page: str, leak: str, generator: random.Random) -> str:
    lines = page.split("\n")
    at = generator.randint(0, len(lines))
    return "\n".join([*lines[:at], leak, *lines[at:]])


def _words_in(leak: str, text: str) -> bool:
    """Say whether any 13 words of the leak, or all of a shorter one, are still in the text."""
    words = split_with_words(leak)[1]
    there = f" {' '.join(split_with_words(text)[1])} "
    least = min(13, len(words))
    return any(f" {' '.join(words[i : i + least])} " in there for i in range(len(words) - least + 1))


def _item_of(detail: str | None) -> str:
    task, item, _ = (detail or "").split(", ", 2)
    return f"{task.split(' (')[0]}/{item}"


def _made_up_benchmark(texts: list[str], path: Path) -> Path:
    generator = random.Random(3)
    vocabulary = sorted({word for text in texts[:400] for word in re.findall(r"[a-z]{3,}", text.lower())})
    with path.open("w") as stream:
        for number in range(5000):
            words = generator.choices(vocabulary, k=generator.choice((10, 11, 30, 45)))
            answers = [" ".join(generator.choices(vocabulary, k=generator.choice((1, 12)))) for _ in range(4)]
            row = {"id": str(number), "question": " ".join(words).capitalize() + ", is it?", "choices": answers}
            stream.write(json.dumps(row) + "\n")
    return path


def _speed(texts: list[str], benchmarks: list[Path], items: int, folder: Path) -> None:
    protected: list[ItemText] = [text for path in benchmarks for text in benchmark_texts(path)]
    number = len({(one.task, one.item) for one in protected})
    generator = random.Random(5)
    vocabulary = [word for one in protected[::50] for word in one.text.split()]
    for more in range(items - number):
        text = " ".join(generator.choices(vocabulary, k=40))
        protected.append(ItemText(task="more", split="", item=str(more), field="question", text=text))
    started = time.process_time()
    settings = IndexSettings(ngram=13, min_words=8, min_characters=35, short_items="whole")
    write_index(folder / "index", protected, settings)
    build = time.process_time() - started
    started = time.process_time()
    index = read_index(folder / "index", settings)
    split("é")
    print(
        f"index: {max(items, number):,} items, {len(index.grams):,} n-grams, {index.bytes() / 1e6:.0f} MB mapped into "
        f"memory; built in {build:.0f} CPU s, start-up of a process {time.process_time() - started:.2f} CPU s"
    )
    pages = about_equal_pages(texts, 4000)
    pages = [page for page in pages if 3000 <= len(page) <= 5000][:2000]
    peer = _datatrove(protected, folder)
    rows: dict[str, list[float]] = {"headwater": [], "datatrove": []}
    for turn in range(5):
        rows["headwater"].append(_per_page(index.search_texts, pages))
        if peer is not None and turn < 2:
            rows["datatrove"].append(_per_page(lambda some: [peer(page) for page in some], pages[:200]))
    mean = statistics.mean(len(page.encode()) for page in pages)
    print(f"search, {len(pages):,} pages of {mean:.0f} bytes on average, CPU µs a page:")
    for name, seconds in rows.items():
        if seconds:
            times = " ".join(f"{s * 1e6:.0f}" for s in seconds)
            print(f"  {name:10s} best {min(seconds) * 1e6:8.1f}   (runs: {times})")
    if rows["datatrove"]:
        print(f"  ratio {min(rows['datatrove']) / min(rows['headwater']):.1f}")


def _datatrove(protected: list[ItemText], folder: Path) -> Callable[[str], object] | None:
    """Return datatrove's n-gram decontamination filter with an index of the same texts."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
        from datatrove.utils.text import simplify_text

        filter_ = NGramsDecontFilter(str(folder), NGramsDecontConfig(n_grams=13))
    except Exception as error:  # noqa: BLE001 - a peer that does not start is left out of the table
        print(f"datatrove's filter is left out: {error}")
        return None
    hashes: dict[int, str] = {}
    for one in protected:
        words = simplify_text(one.text, filter_.config.norm_config).split()
        for i in range(len(words) - 12):
            hashes[filter_.hash_func(" ".join(words[i : i + 13]))] = one.task
    filter_._index_hashes = hashes
    return lambda page: filter_.filter(Document(text=page, id="0"))


def _per_page(function: Callable[[list[str]], object], pages: list[str]) -> float:
    started = time.process_time()
    function(pages)
    return (time.process_time() - started) / len(pages)


if __name__ == "__main__":
    main()
