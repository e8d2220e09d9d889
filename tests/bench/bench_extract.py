"""How well and how fast each extraction engine finds the main text, and what the stage adds to it.

    python -m tests.bench.bench_extract [--gold FILE.jsonl] [--pages FILE.warc.gz] [--every N]

Quality (needs --gold, a JSON line a page with `url`, `gold_text` or `must_contain`/`must_not_contain`, `source`, and
--pages, which holds the pages): the words (tasks.contracts.words: compatibility form, lower case, one a character in
scripts without spaces) of the extracted and the annotated text are compared as multisets. Precision is the share of
the extracted words that are annotated, recall the share of the annotated that are extracted, F1 their harmonic mean;
all three by page, then the mean over pages. Pages with snippets only are counted apart: the share of the wanted and of
the unwanted snippets that are in the text.

Speed is CPU time (process_time) of this one process; the engines take turns on each page, so that a shared machine
slows all alike, and the last column is the ratio to trafilatura in its default mode in the same run. Decoding is not
in it; parsing, text and metadata are. Without --pages the sample site's own pages are timed.

trafilatura as it comes: the library with its own expressions (see tasks/extract/selectors.py) on the same pages, in
turns of fifty, and on how many pages the text is the same, byte for byte.

The stage: CPU time of one shard, from the WARC file to the Parquet files, the child process included and its start
left out, beside the engine's own time on the same pages.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from tasks.contracts.charset import decode
from tasks.contracts.words import words
from tasks.engine.shards import ShardWork
from tasks.extract.engines import content_of
from tasks.extract.stage import Params, extract_shard
from tasks.extract.warc_pages import Page, read_pages
from tasks.extract.worker import close_shared
from tasks.extract.worker_messages import Settings
from tests.tasks.extract.unchanged import unchanged_trafilatura

ENGINES = {
    "trafilatura default": Settings(engine="trafilatura", mode="default"),
    "trafilatura precision": Settings(engine="trafilatura", mode="precision"),
    "trafilatura recall": Settings(engine="trafilatura", mode="recall"),
    "trafilatura fast": Settings(engine="trafilatura", mode="fast"),
    "justext": Settings(engine="justext"),
    "resiliparse": Settings(engine="resiliparse"),
    "combined": Settings(engine="combined"),
}
TURN = 50
STAGED = ("trafilatura recall", "combined", "resiliparse")
Score = tuple[float, float, float]


def score(text: str, gold: str) -> Score:
    """Return precision, recall and F1 of the words of one page."""
    found, wanted = Counter(words(text)), Counter(words(gold))
    if not found or not wanted:
        return (1.0, 1.0, 1.0) if not found and not wanted else (0.0, 0.0, 0.0)
    common = (found & wanted).total()
    precision, recall = common / found.total(), common / wanted.total()
    return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0


def mean(scores: Sequence[Score]) -> Score:
    """Return the mean of each of the three over the pages."""
    first, second, third = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    return first, second, third


def text_of(html: str, settings: Settings) -> str:
    """Return an engine's text, "" where it fails: a page that breaks an engine counts as missed."""
    try:
        content = content_of(html, settings)
    except Exception:  # noqa: BLE001 - whatever a parser raises
        return ""
    return content.text if content is not None else ""


def timed(pages: Iterable[tuple[str, str]]) -> tuple[dict[str, dict[str, str]], dict[str, float], int]:
    """Let every engine extract every page; return texts by engine and URL, CPU seconds by engine, and the pages."""
    texts: dict[str, dict[str, str]] = {name: {} for name in ENGINES}
    seconds = dict.fromkeys(ENGINES, 0.0)
    number = 0
    for number, (url, html) in enumerate(pages, start=1):
        for name, settings in ENGINES.items():
            start = time.process_time()
            text = text_of(html, settings)
            seconds[name] += time.process_time() - start
            texts[name][url] = text
        if number == 1:  # what loads on first use is not part of a page's time
            seconds = dict.fromkeys(ENGINES, 0.0)
    return texts, seconds, max(number - 1, 1)


def against_unchanged(pages: Sequence[tuple[str, str]], say: Callable[[str], None]) -> None:
    """Print what trafilatura takes with its own expressions beside ours, mode by mode, and whether the texts agree."""
    say(f"\n{'CPU ms a page':24}{'as it comes':>13}{'here':>9}{'ratio':>9}{'same text':>20}")
    for name, settings in ENGINES.items():
        if settings.engine != "trafilatura":
            continue
        theirs, ours, same = 0.0, 0.0, 0
        for first in range(0, len(pages), TURN):
            turn = [html for _, html in pages[first : first + TURN]]
            with unchanged_trafilatura():
                start = time.process_time()
                expected = [text_of(html, settings) for html in turn]
                theirs += time.process_time() - start
            start = time.process_time()
            found = [text_of(html, settings) for html in turn]
            ours += time.process_time() - start
            same += sum(a == b for a, b in zip(expected, found, strict=True))
        figures = f"{theirs / len(pages) * 1e3:13.2f}{ours / len(pages) * 1e3:9.2f}{theirs / ours:9.2f}"
        say(f"{name:24}{figures}{f'{same} of {len(pages)}':>20}")


def quality(
    rows: Sequence[Mapping[str, Any]], texts: Mapping[str, Mapping[str, str]], say: Callable[[str], None]
) -> None:
    """Print the tables of scores: over all annotated pages, by group, and of the snippets."""
    annotated = [row for row in rows if row.get("gold_text")]
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in annotated:
        groups[row["source"].split("/")[-1][:28]].append(row)
        if row.get("page_type"):
            groups[f"page type {row['page_type']}"].append(row)
    results = {
        name: {row["url"]: score(texts[name][row["url"]], row["gold_text"]) for row in annotated} for name in ENGINES
    }
    say(f"\n{len(annotated)} pages with annotated text: mean precision, recall, F1")
    for name in ENGINES:
        say(f"{name:24}" + "".join(f"{x:8.3f}" for x in mean(list(results[name].values()))))
    short = {name: name.replace("trafilatura ", "traf. ")[:11] for name in ENGINES}
    say(f"\nF1 by group\n{'':40}{'pages':>6}" + "".join(f"{label:>13}" for label in short.values()))
    for group, members in sorted(groups.items()):
        means = [mean([results[name][row["url"]] for row in members])[2] for name in ENGINES]
        say(f"{group:40}{len(members):6}" + "".join(f"{x:13.3f}" for x in means))
    snippets = [row for row in rows if not row.get("gold_text") and row.get("must_contain")]
    say(f"\n{len(snippets)} pages with snippets: share of the wanted, of the unwanted that are in the text")
    for name in ENGINES:
        wanted = [share(texts[name][row["url"]], row["must_contain"]) for row in snippets]
        unwanted = [share(texts[name][r["url"]], r["must_not_contain"]) for r in snippets if r.get("must_not_contain")]
        say(f"{name:24}{sum(wanted) / max(len(wanted), 1):8.3f}{sum(unwanted) / max(len(unwanted), 1):8.3f}")


def share(text: str, snippets: Sequence[str]) -> float:
    """Return the share of the snippets that are in a text, white space apart."""
    flat = " ".join(text.split())
    return sum(" ".join(snippet.split()) in flat for snippet in snippets) / len(snippets)


def cpu() -> float:
    """Return the CPU seconds of this process and of its children that run."""
    children = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(times.user + times.system for times in children)


def stage_seconds(warc: Path, empty: Path, name: str) -> float:
    """Return the CPU seconds of making one shard with an engine, in a child process that runs already."""
    settings = ENGINES[name]
    params = Params(engine=settings.engine, mode=settings.mode, max_failure_rate=1.0)
    with tempfile.TemporaryDirectory() as folder:
        for path in (empty, warc):
            start = cpu()
            work = ShardWork(name=path.name.partition(".")[0], inputs=(path,), input_hashes=("",))
            extract_shard(work, Path(folder), source="bench", params=params)
        spent = cpu() - start
    close_shared()
    return spent


def stage_table(warc: Path, pages: Sequence[Page], say: Callable[[str], None]) -> None:
    """Print what the stage takes beside its engine, on the same pages."""
    say(f"\nStage on {len(pages)} pages, CPU ms a page: engine alone, whole stage, what the stage adds, pages/s a core")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.warc.gz"
        empty.write_bytes(one_record())
        for name in STAGED:
            start = time.process_time()
            for page in pages:
                html, _ = decode(page.body, page.content_type)
                text_of(html, ENGINES[name])
            alone = (time.process_time() - start) / len(pages)
            whole = stage_seconds(warc, empty, name) / len(pages)
            say(f"{name:24}{alone * 1e3:9.2f}{whole * 1e3:9.2f}{whole / alone - 1:9.1%}{1 / whole:9.0f}")


def one_record() -> bytes:
    """Return a WARC file of one small page: what the child's start costs is measured with it."""
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>one</p></body></html>"
    head = "WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:x:1>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
    head += "WARC-Target-URI: http://a.example/\r\nContent-Type: application/http; msgtype=response\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


def sample_pages() -> list[tuple[str, str]]:
    """Return some of the sample site's pages, as URL and HTML."""
    from tasks.crawl.sample.site import build_pages

    pages = [page for page in build_pages(1) if b"<body" in page.body]
    return [
        (f"http://{page.host}{page.path}", page.body.decode("utf-8", "replace")) for page in pages[:: len(pages) // 300]
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", type=Path, help="JSON lines with annotated pages")
    parser.add_argument("--pages", type=Path, help="WARC file with the pages")
    parser.add_argument("--every", type=int, default=1, help="take every Nth page (quicker)")
    parser.add_argument("--stage-pages", type=int, default=0, help="measure the stage on this many first pages too")
    options = parser.parse_args()
    say: Callable[[str], None] = lambda line: print(line, file=sys.stdout, flush=True)  # noqa: E731
    rows: list[dict[str, Any]] = []
    if options.gold:
        rows = [json.loads(line) for line in options.gold.read_bytes().splitlines()][:: options.every]
    wanted = {row["url"] for row in rows}
    if options.pages:
        records = (page for page in read_pages(options.pages, 20_000_000) if page.reason is None)
        chosen = (
            (p for p in records if p.url in wanted) if rows else islice(records, 0, 1000 * options.every, options.every)
        )
        pages = [(page.url, decode(page.body, page.content_type)[0]) for page in chosen]
    else:
        pages = sample_pages()
    texts, seconds, number = timed(pages)
    if rows:
        found = {url for url, _ in pages}
        quality([row for row in rows if row["url"] in found], texts, say)
    say(f"\n{number} pages, mean {sum(len(h) for _, h in pages) / len(pages) / 1000:.0f} thousand characters")
    say(f"{'engine':24}{'pages/s':>9}{'ms/page':>9}{'against trafilatura default':>30}")
    base = seconds["trafilatura default"]
    for name, spent in seconds.items():
        say(f"{name:24}{number / spent:9.0f}{spent / number * 1e3:9.2f}{base / spent:29.1f}x")
    against_unchanged(pages, say)
    if options.pages and options.stage_pages:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part.warc.gz"
            first = first_records(options.pages, part, options.stage_pages)
            stage_table(part, first, say)


def first_records(source: Path, target: Path, number: int) -> list[Page]:
    """Copy the first records of a WARC file that hold pages, and return them."""
    pages = [page for page in islice(read_pages(source, 20_000_000), number) if page.reason is None]
    with source.open("rb") as stream:
        target.write_bytes(stream.read(pages[-1].offset))
    return pages[:-1]


if __name__ == "__main__":
    main()
