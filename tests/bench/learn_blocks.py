"""The recipe of tasks/extract/block_model.json, and what the model is worth on sites that it never saw.

    python -m tests.bench.learn_blocks --pages wcxb_dev.jsonl.zst [--save]

The pages are those of WCXB's development split (Murrough Foley, 2026; annotations CC BY 4.0): a JSON line each with
`url`, `page_type`, `html` and `main_content`. A fifth of the sites, chosen by the hash of their registered domain, is
held out: nothing is learnt from it, and the table is of it.

What is learnt is word F1 itself. With p the probability of each block, c its words and g the page's annotated ones, as
multisets, the loss of a page is 1 - 2 Σ min(Σ p c, g) / (Σ p |c| + |g|), which is 1 - F1 where every p is 0 or 1.
So that it does not lean on what its own pages have and others lack (names of elements as today's frameworks give them,
what a page says that it is), in three of ten lessons a page goes without: without all names, or kinds, or tags, or its
own words about itself.

Weights are kept within ±1 and rounded to 1/128 in every forward pass, as they are saved (rounding passes the gradient
through). Two runs on one machine give the same file; another version of torch gives another of the same worth.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tldextract
import torch
import zstandard
from torch.nn import functional

from tasks.extract.block_model import FILE, LAYERS, NEIGHBOURS, model
from tasks.extract.blocks import BIT, NAMES, read
from tasks.extract.carried import with_carried_text
from tasks.extract.engines import content_of
from tasks.extract.features import GRAIN, LEVELS, TAGS, features_of, kind_of_page
from tasks.extract.metadata import Head
from tasks.extract.worker_messages import Settings

HELD_OUT_PERCENT = 20
WIDTHS = (24, 16, 1)
BITS = 7
EPOCHS, BATCH, RATE, DECAY, DROPOUT = 24, 16, 4e-3, 3e-2, 0.25
WITHOUT = 0.3
SEED = 0
ENGINES = {
    "combined": Settings(engine="combined"),
    "trafilatura default": Settings(engine="trafilatura", mode="default"),
    "trafilatura recall": Settings(engine="trafilatura", mode="recall"),
    "resiliparse": Settings(engine="resiliparse"),
}
# As the benchmark's authors count.
WORD = re.compile(r"\w+")


@dataclass(slots=True)
class Page:
    """A page as the network sees it.

    Attributes:
        values: float32 [blocks, columns].
        ranges: int64 [blocks, levels, 2].
        sizes: float32 [blocks], words.
        block, word, times: int64, int64, float32 [pairs]: how often an annotated word stands in a block.
        wanted: float32 [annotated words], how often each was annotated.
    """

    values: torch.Tensor
    ranges: torch.Tensor
    sizes: torch.Tensor
    block: torch.Tensor
    word: torch.Tensor
    times: torch.Tensor
    wanted: torch.Tensor


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the annotated pages of a file."""
    with path.open("rb") as file, zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)


def held_out(url: str) -> bool:
    """Return whether a page's site is one that nothing is learnt from."""
    return int(hashlib.sha256(_site(url).encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


# By the list that comes with the package: nothing is fetched.
_DOMAINS = tldextract.TLDExtract(suffix_list_urls=())


def _site(url: str) -> str:
    return _DOMAINS(url).top_domain_under_public_suffix or url


def page_of(row: dict[str, Any]) -> Page | None:
    """Return a page in numbers, None where it has no block or no annotated word."""
    reading = read(with_carried_text(row["html"]))
    wanted = Counter(WORD.findall((row["main_content"] or "").lower()))
    if not reading.blocks or not wanted:
        return None
    place = {word: index for index, word in enumerate(wanted)}
    words = [WORD.findall(block.text.lower()) for block in reading.blocks]
    pairs = [
        (number, place[word], times)
        for number, found in enumerate(words)
        for word, times in Counter(found).items()
        if word in place
    ]
    block, word, times = np.array(pairs or np.zeros((0, 3)), dtype=np.int64).T
    features = features_of(reading)
    return Page(
        values=torch.tensor(features.values(), dtype=torch.float32),
        ranges=torch.tensor(features.ranges),
        sizes=torch.tensor([len(found) for found in words], dtype=torch.float32),
        block=torch.tensor(block),
        word=torch.tensor(word),
        times=torch.tensor(times, dtype=torch.float32),
        wanted=torch.tensor(list(wanted.values()), dtype=torch.float32),
    )


def together(pages: Sequence[Page]) -> tuple[Page, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pages as one, with empty blocks between them, and for each block and word which page it is of.

    The last is 1 for a block and 0 for what stands between pages, [blocks, 1].
    """
    gap = 2 * NEIGHBOURS
    starts = np.cumsum([0, *(len(page.sizes) + gap for page in pages)])
    words = np.cumsum([0, *(len(page.wanted) for page in pages)])

    def padded(values: torch.Tensor) -> torch.Tensor:
        return functional.pad(values, (0, 0) * (values.dim() - 1) + (0, gap))

    ranges = []
    for page, start in zip(pages, starts.tolist(), strict=False):
        alone = torch.arange(start + len(page.sizes), start + len(page.sizes) + gap)
        between = torch.stack([alone, alone + 1], 1)[:, None].expand(-1, LEVELS + 1, -1)
        ranges.append(torch.cat([page.ranges + start, between]))
    one = Page(
        values=torch.cat([padded(page.values) for page in pages]),
        ranges=torch.cat(ranges),
        sizes=torch.cat([padded(page.sizes) for page in pages]),
        block=torch.cat([page.block + start for page, start in zip(pages, starts.tolist(), strict=False)]),
        word=torch.cat([page.word + start for page, start in zip(pages, words.tolist(), strict=False)]),
        times=torch.cat([page.times for page in pages]),
        wanted=torch.cat([page.wanted for page in pages]),
    )
    of_block = torch.repeat_interleave(torch.arange(len(pages)), torch.tensor(np.diff(starts)))
    of_word = torch.repeat_interleave(torch.arange(len(pages)), torch.tensor(np.diff(words)))
    there = torch.cat([padded(torch.ones(len(page.sizes), 1)) for page in pages])
    return one, of_block, of_word, there


class Network(torch.nn.Module):
    """The layers of tasks/extract/block_model.py, to be learnt."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        seen = 2 * NEIGHBOURS + 1 + LEVELS + 1
        inputs = (columns, WIDTHS[0] * seen, WIDTHS[1] * seen)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n, m) for n, m in zip(inputs, WIDTHS, strict=True))

    def forward(self, page: Page, there: torch.Tensor) -> torch.Tensor:
        """Return a score a block, [blocks]."""
        block, context, answer = self.layers
        seen = functional.dropout(page.values, DROPOUT, self.training)
        seen = torch.relu(_applied(block, seen)) * there
        seen = functional.dropout(seen, DROPOUT / 2, self.training)
        seen = torch.relu(_applied(context, _surrounded(seen, page.ranges))) * there
        return _applied(answer, _surrounded(seen, page.ranges))[:, 0]


def _applied(layer: Any, values: torch.Tensor) -> torch.Tensor:
    weights = layer.weight + (torch.round(layer.weight * 2**BITS) / 2**BITS - layer.weight).detach()
    biases = layer.bias + (torch.round(layer.bias * GRAIN) / GRAIN - layer.bias).detach()
    return functional.linear(values, weights, biases)


def _surrounded(values: torch.Tensor, ranges: torch.Tensor) -> torch.Tensor:
    number = len(values)
    padded = functional.pad(values, (0, 0, NEIGHBOURS, NEIGHBOURS))
    near = [padded[offset : offset + number] for offset in range(2 * NEIGHBOURS + 1)]
    running = functional.pad(torch.cumsum(values.double(), 0), (0, 0, 1, 0))
    first, last = ranges[:, :, 0], ranges[:, :, 1]
    means = ((running[last] - running[first]) / (last - first)[:, :, None]).float()
    return torch.cat([*near, *means.unbind(1)], 1)


def soft_f1(kept: torch.Tensor, page: Page, of_block: torch.Tensor, of_word: torch.Tensor) -> torch.Tensor:
    """Return the F1 of each page, [pages], where `kept` says how much of each block is taken."""
    pages = int(of_block[-1]) + 1
    found = torch.zeros_like(page.wanted).index_add(0, page.word, kept[page.block] * page.times)
    common = torch.zeros(pages).index_add(0, of_word, torch.minimum(found, page.wanted))
    wanted = torch.zeros(pages).index_add(0, of_word, page.wanted)
    taken = torch.zeros(pages).index_add(0, of_block, kept * page.sizes)
    return 2 * common / (taken + wanted)


def groups(columns: int) -> list[slice]:
    """Return the columns of a page that stand for kinds, names, tags, and what the page says of itself."""
    flags = 2 * len(BIT), 2 * len(NAMES), len(TAGS)
    about = columns - len(kind_of_page(Head()))
    numbers = features_of(read("<p>any</p>")).numbers.shape[1]
    ends = np.cumsum([numbers, *flags]).tolist()
    return [*(slice(start, end) for start, end in pairwise(ends)), slice(about, columns)]


def learn(pages: Sequence[Page], say: Callable[[str], None]) -> Network:
    """Return a network that was taught the pages."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order
    order = random.Random(SEED)
    network = Network(pages[0].values.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    batches = len(pages) // BATCH
    without = groups(pages[0].values.shape[1])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches, pct_start=0.1)
    for epoch in range(EPOCHS):
        network.train()
        shuffled = order.sample(pages, len(pages))
        total = 0.0
        for start in range(0, batches * BATCH, BATCH):
            page, of_block, of_word, there = together(shuffled[start : start + BATCH])
            for group in without:
                goes_without = torch.rand(BATCH) < WITHOUT
                page.values[:, group] *= ~goes_without[of_block][:, None]
            loss = 1 - soft_f1(torch.sigmoid(network(page, there)), page, of_block, of_word).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for layer in network.layers:
                    assert isinstance(layer, torch.nn.Linear)
                    layer.weight.clamp_(-1, 1 - 2**-BITS)
            total += float(loss.detach())
        say(f"epoch {epoch + 1} of {EPOCHS}: mean soft F1 {1 - total / batches:.4f}")
    return network


def save(network: Network, path: Path) -> None:
    """Write the weights as block_model.py reads them."""
    told: dict[str, Any] = {"learnt_from": "WCXB development split, Murrough Foley 2026, CC BY 4.0; see NOTICE"}
    for name, layer in zip(LAYERS, network.layers, strict=True):
        assert isinstance(layer, torch.nn.Linear)
        weights = np.round(layer.weight.detach().numpy().T * 2**BITS).astype(np.int8)
        biases = np.round(layer.bias.detach().numpy() * GRAIN).astype(int).tolist()
        told[name] = {"bits": BITS, "biases": biases, "weights": base64.b64encode(weights.tobytes()).decode()}
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    model.cache_clear()


def word_f1(text: str, gold: str) -> float:
    """Return word F1 as the benchmark's authors count it."""
    found, wanted = Counter(WORD.findall(text.lower())), Counter(WORD.findall(gold.lower()))
    if not found or not wanted:
        return float(not found and not wanted)
    return 2 * (found & wanted).total() / (found.total() + wanted.total())


def report(tests: Sequence[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Print F1 by kind of page and CPU milliseconds a page of every engine; they take turns on each page."""
    results: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ENGINES}
    seconds = dict.fromkeys(ENGINES, 0.0)
    for number, row in enumerate(tests):
        for name, settings in ENGINES.items():
            start = time.process_time()
            try:
                content = content_of(row["html"], settings)
            except Exception:  # noqa: BLE001 - whatever a parser raises: a page that breaks an engine is missed
                content = None
            seconds[name] += (time.process_time() - start) * (number > 0)
            score = word_f1(content.text if content else "", row["main_content"] or "")
            for group in ("all", row["page_type"]):
                results[name][group].append(score)
    say(
        f"\n{'F1 on held-out sites':24}{'pages':>6}"
        + "".join(f"{name.replace('trafilatura', 'traf.'):>16}" for name in ENGINES)
    )
    for group in sorted(results["combined"]):
        means = [sum(results[name][group]) / len(results[name][group]) for name in ENGINES]
        say(f"{group:24}{len(results['combined'][group]):6}" + "".join(f"{mean:16.3f}" for mean in means))
    milliseconds = [spent / max(len(tests) - 1, 1) * 1e3 for spent in seconds.values()]
    say(f"{'CPU ms a page':30}" + "".join(f"{one:16.1f}" for one in milliseconds))


def main() -> None:
    """Learn where asked to save, and print what the model is worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True, help="WCXB's development split, .jsonl.zst")
    parser.add_argument("--save", action="store_true", help="learn, and write block_model.json")
    options = parser.parse_args()
    say: Callable[[str], None] = lambda line: print(line, file=sys.stdout, flush=True)  # noqa: E731
    lessons: list[Page] = []
    tests: list[dict[str, Any]] = []
    for row in rows(options.pages):
        if held_out(row["url"]):
            tests.append(row)
        elif options.save and (page := page_of(row)):
            lessons.append(page)
    if options.save:
        say(f"{len(lessons)} pages to learn from, {len(tests)} of other sites held out")
        save(learn(lessons, say), FILE)
        say(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
    report(tests, say)


if __name__ == "__main__":
    main()
