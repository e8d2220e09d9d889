"""What taking WARC files in costs, beside reading them with fastwarc and warcio, and beside extracting their pages.

    python -m tests.bench.bench_crawl [--pages FILE.warc.gz] [--rounds 3]

One process, CPU seconds, the candidates in turn within each round; shown is each one's best round.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from fastwarc.warc import ArchiveIterator as FastWarc
from trafilatura import extract
from warcio.archiveiterator import ArchiveIterator as Warcio

from tasks.crawl.archives import take_archives
from tasks.crawl.sample.pages import package_pages
from tasks.crawl.warc_writer import Page, Writer
from tasks.extract.warc_pages import read_pages
from tasks.rights.evidence import Evidence, RobotsVerdict, find_licenses, html_signals

EXTRACTED = 100


def own_pages(path: Path) -> None:
    """Write the sample's pages of one package, several times over, as a WARC file."""
    stream = io.BytesIO()
    writer = Writer(stream)
    for copy in range(10):
        for page in package_pages("click", 60):
            url = f"{page.url}?copy={copy}"
            exchange = Page(url=url, when="2026-01-01T00:00:00Z", address=None, request=b"GET / HTTP/1.1\r\n\r\n",
                            status="200 OK", headers=[("Content-Type", "text/html")], body=page.body)  # fmt: skip
            writer.write_page(exchange, Evidence(url=url, robots=RobotsVerdict(user_agent="bench", allowed=True)))
    path.write_bytes(stream.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="a WARC file; without it the sample's pages")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages = arguments.pages or Path(folder) / "pages.warc.gz"
        if arguments.pages is None:
            own_pages(pages)
        bodies = [page for page in islice(read_pages(pages, 20_000_000), 2000) if page.reason is None]
        few = bodies[:: max(1, len(bodies) // EXTRACTED)][:EXTRACTED]
        texts = [page.body.decode("utf-8", "replace") for page in few]
        count = sum(1 for page in read_pages(pages, 20_000_000))

        def take() -> None:
            shutil.rmtree(Path(folder) / "out", ignore_errors=True)
            take_archives([str(pages)], megabytes=4, output=Path(folder) / "out")

        def read(reader: Callable[..., object]) -> None:
            with pages.open("rb") as stream:
                for _ in reader(stream):  # type: ignore[attr-defined]
                    pass

        candidates: dict[str, tuple[Callable[[], object], int]] = {
            "take_archives": (take, count),
            "fastwarc, read only": (lambda: read(lambda stream: FastWarc(stream, parse_http=False)), count),
            "warcio, read only": (lambda: read(lambda stream: Warcio(stream)), count),
            "opt-out signals and licences": (
                lambda: [(tuple(html_signals(text)), find_licenses((), text, "http://a.example/")) for text in texts],
                len(texts),
            ),
            "trafilatura, fast": (lambda: [extract(text, fast=True) for text in texts], len(texts)),
        }
        best: dict[str, float] = {}
        for _ in range(arguments.rounds):
            for name, (run, number) in candidates.items():
                started = time.process_time()
                run()
                best[name] = min(best.get(name, 1e9), (time.process_time() - started) / number)
    out = sys.stdout.write
    out(f"{count} pages, {pages.name}\n{'':30}{'µs a page':>12}{'of trafilatura':>16}\n")
    for name, seconds in best.items():
        out(f"{name:30}{seconds * 1e6:12.0f}{seconds / best['trafilatura, fast']:16.1%}\n")


if __name__ == "__main__":
    main()
