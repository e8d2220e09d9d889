"""How much of a documentation page's structure is left in its text: code, tables, nested lists, formulas.

    python -m tests.bench.bench_structure --pages FILE.warc.gz [--count 200] [--host docs.example]

What a page holds is read from its HTML by a parser that no engine shares the reading of (lxml's tree, element by
element), without what stands in
nav, header, footer and aside, or in what is called so. An engine has kept

- a code block, where every character of it stands in the text, line ends and indentation included;
- a table (two columns or more, no table, list, code or heading in it, no cell of more than 60 words, not of links
  for the most part), where each row is
  a line that holds its cells in order, and nothing else but separators;
- a nested list (not one of links alone), where each item of the inner one is a line that is further in than the line of
  the item around it;
- a formula, where its source (MathML's alttext, or its TeX annotation) stands in the text.

Of the pages that hold any of these, every so-and-so-many-th is taken.

Without --pages the pages are those of the embedded sample site.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lxml import html as lxml_html

from tasks.contracts.charset import decode
from tasks.extract.warc_pages import read_pages
from tests.bench.bench_extract import ENGINES, sample_pages, text_of

KINDS = ("code", "table", "nested list", "formula")
AROUND = "ancestor::nav or ancestor::header or ancestor::footer or ancestor::aside"
AROUND += " or ancestor::*[contains(@class, 'nav') or contains(@class, 'header') or contains(@class, 'footer')]"
CELL_WORDS = 60
_SEPARATORS = re.compile(r"[|\s]+")


def flat(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def codes(tree: Any) -> Iterator[str]:
    """Yield the text of each code block, as HTML has its line ends."""
    for pre in tree.xpath(f"//pre[not({AROUND} or ancestor::pre)]"):
        for line_end in pre.iter("br"):
            line_end.tail = "\n" + (line_end.tail or "")
        code = pre.text_content().replace("\r\n", "\n").strip("\n").rstrip()
        if len(code.split()) > 2:
            yield code


def tables(tree: Any) -> Iterator[list[list[str]]]:
    """Yield the rows of each table of data, which are lists of cells."""
    unlike = ".//table or .//ul or .//ol or .//pre or .//h1 or .//h2 or .//h3 or .//h4 or .//h5 or .//h6"
    for table in tree.xpath(f"//table[not({AROUND} or ancestor::table or {unlike})]"):
        rows = [[flat(cell.text_content()) for cell in row.xpath("./td|./th")] for row in table.iter("tr")]
        cells = [cell for row in rows for cell in row]
        if 2 * len(flat("".join(table.xpath(".//a//text()")))) > len(flat(table.text_content())):
            continue  # Prev, Up, Next
        if rows and max(map(len, rows)) > 1 and any(cells) and max(len(cell.split()) for cell in cells) <= CELL_WORDS:
            yield [row for row in rows if any(row)]


def nested(tree: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the beginning of each list item that holds a list, and those of the inner one's items.

    A list of links alone is a table of contents, wherever it stands.
    """
    for item in tree.xpath(f"//li[(ul or ol) and not({AROUND})]"):
        if not flat("".join(item.xpath(".//text()[not(ancestor::a)]"))):
            continue
        inner = [_beginning(one) for one in item.xpath("./ul/li|./ol/li")]
        outer = _beginning(item)
        if outer and all(inner) and inner:
            yield outer, inner


def _beginning(item: Any) -> str:
    """Return what stands in an item before a list or a second block begins."""
    pieces: list[str] = []
    for text in item.xpath(".//text()[not(ancestor::script)]"):
        above = text.getparent() if not text.is_tail else text.getparent().getparent()
        while above is not item and above.tag not in ("ul", "ol", "p", "div", "pre", "dl", "table"):
            above = above.getparent()
        if flat("".join(pieces)) and (
            above is not item or (text.is_tail and text.getparent().tag in ("br", "p", "div", "ul", "ol"))
        ):
            break
        pieces.append(str(text))
    return flat("".join(pieces))[:60].strip()


def formulas(tree: Any) -> Iterator[str]:
    """Yield the source of each formula."""
    for math in tree.xpath(f"//math[not({AROUND})]"):
        tex = math.get("alttext") or "".join(math.xpath(".//annotation[contains(@encoding, 'tex')]/text()"))
        if tex.strip():
            yield flat(tex)


def kept(html: str, text: str) -> Counter[tuple[str, bool]]:
    """Return how many things of each kind a page holds that are in a text, and that are not."""
    tree = lxml_html.fromstring(html.encode("utf-8", "replace"), parser=lxml_html.HTMLParser(encoding="utf-8"))
    lines = text.split("\n")
    rows = {_SEPARATORS.sub(" ", line).strip() for line in lines if line.strip()}
    depths: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        depths[flat(line.strip(" -*•"))[:60].strip()].append(len(line) - len(line.lstrip(" ")))
    one_line = flat(text)
    found: Counter[tuple[str, bool]] = Counter()
    for table in tables(tree):
        found["table", all(_SEPARATORS.sub(" ", " ".join(row)).strip() in rows for row in table)] += 1
    for outer, inner in nested(tree):
        depth = min(depths.get(outer, [1 << 30]))
        found["nested list", all(max(depths.get(one, [-1])) > depth for one in inner)] += 1
    for formula in formulas(tree):
        found["formula", formula in one_line] += 1
    for code in codes(tree):
        found["code", code in text] += 1
    return found


def compare(pages: Sequence[tuple[str, str]], say: Callable[[str], None]) -> None:
    """Print the share of each kind of structure that each engine keeps."""
    totals = {
        name: sum((kept(html, text_of(html, settings)) for _, html in pages), Counter[tuple[str, bool]]())
        for name, settings in ENGINES.items()
    }
    any_engine = next(iter(totals.values()))
    numbers = {kind: any_engine[kind, True] + any_engine[kind, False] for kind in KINDS}
    say(f"{len(pages)} pages; kept of\n{'':24}" + "".join(f"{f'{numbers[kind]} {kind}':>18}" for kind in KINDS))
    for name, found in totals.items():
        shares = [f"{found[kind, True] / numbers[kind]:.1%}" if numbers[kind] else "-" for kind in KINDS]
        say(f"{name:24}" + "".join(f"{share:>18}" for share in shares))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="WARC file with the pages")
    parser.add_argument("--host", default="docs.example", help="take pages of hosts that end so")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    if options.pages:
        records = [page for page in read_pages(options.pages, 20_000_000) if page.reason is None]
        every = [(p.url, decode(p.body, p.content_type)[0]) for p in records if p.host.endswith(options.host)]
        holding = [page for page in every if kept(page[1], "")]
        pages = holding[:: max(len(holding) // options.count, 1)][: options.count]
    else:
        pages = sample_pages()[: options.count]
    compare(pages, lambda line: print(line, file=sys.stdout, flush=True))


if __name__ == "__main__":
    main()
