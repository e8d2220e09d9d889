"""The lines of a text: list items indented by depth, the cells of a table's row side by side, code as it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.extract.blocks import HEADINGS, Block, Elements

CELL_WORDS = 60
"""A cell of more words makes its table the page's layout."""
BETWEEN_CELLS = " | "
_CELLS = frozenset({"td", "th"})
_NO_CELL = HEADINGS | {"pre", "li"}


@dataclass(slots=True)
class Table:
    """A table of data: its rows hold cells, which hold places of blocks; an empty cell holds none."""

    rows: list[list[list[int]]] = field(default_factory=list)

    def places(self) -> list[int]:
        """Return the places of its blocks, in order."""
        return [place for row in self.rows for cell in row for place in cell]


def data_tables(blocks: Sequence[Block], elements: Elements) -> list[Table]:
    """Return the tables that hold data: two columns or more of short cells, without headings, lists, code or tables."""
    if "table" not in elements.tags:
        return []
    table_of, cell_of = [0] * len(elements.tags), [0] * len(elements.tags)
    nesting: set[int] = set()
    rows: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for element in range(1, len(elements.tags)):
        tag, parent = elements.tags[element], elements.parents[element]
        table_of[element], cell_of[element] = table_of[parent], cell_of[parent]
        if tag == "table":
            if table_of[parent]:
                nesting.add(table_of[parent])
            table_of[element], cell_of[element] = element, 0
        elif tag in _CELLS and table_of[element]:
            cell_of[element] = element
            rows[table_of[element]][parent].append(element)
    held: dict[int, list[int]] = defaultdict(list)
    layout = set(nesting)
    for place, block in enumerate(blocks):
        held[cell_of[block.element]].append(place)
        if block.tag in _NO_CELL:
            layout.add(table_of[block.element])
    tables = []
    for element, found in rows.items():
        table = Table(rows=[[held[cell] for cell in cells] for cells in found.values()])
        words = [sum(blocks[place].words for place in cell) for row in table.rows for cell in row]
        if element not in layout and max(map(len, table.rows)) > 1 and max(words) <= CELL_WORDS:
            tables.append(table)
    return tables


def lines_of(blocks: Sequence[Block], tables: Sequence[Table], chosen: Sequence[int]) -> list[str]:
    """Return the lines of the chosen blocks, given by place; a table's rows are chosen whole."""
    row_of: dict[int, tuple[int, str]] = {}
    wanted = set(chosen)
    for table in tables:
        for cells in table.rows:
            places = [place for cell in cells for place in cell]
            if len(cells) > 1 and places and wanted.issuperset(places):
                line = BETWEEN_CELLS.join(" ".join(blocks[place].text for place in cell) for cell in cells)
                row_of |= dict.fromkeys(places, (places[0], line))
    lines = []
    for place in chosen:
        first, line = row_of.get(place, (place, _line(blocks[place])))
        if first == place:
            lines.append(line)
    return lines


def _line(block: Block) -> str:
    return "  " * (block.item - 1) + f"- {block.text}" if block.item else block.text
