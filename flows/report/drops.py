"""A stage's drop reasons for people who have only MLflow: a table and a bar plot, made from its manifest."""

from __future__ import annotations

import json
from html import escape

from tasks.contracts.manifest import Manifest

TABLE, PLOT = "dropped.json", "dropped.svg"

_WIDTH, _LABEL, _BAR, _ROW, _TOP = 900, 360, 380, 34, 76


def ordered(manifest: Manifest) -> list[tuple[str, int, float]]:
    """Return (rule, number, share of what went in) of every rule that dropped something, the largest first."""
    counts = manifest.counts
    rules = sorted(counts.dropped.items(), key=lambda item: (-item[1], item[0]))
    return [(rule, number, number / max(counts.in_, 1)) for rule, number in rules if number]


def drop_table(manifest: Manifest) -> str:
    """Return the drop reasons as MLflow's table, its JSON layout "split" (columns and rows)."""
    rows = [[rule, number, f"{share:.2%}"] for rule, number, share in ordered(manifest)]
    return json.dumps({"columns": ["rule", f"{manifest.unit} dropped", "share of what went in"], "data": rows})


def drop_plot(manifest: Manifest) -> str:
    """Return the drop reasons as a bar plot: one SVG that needs nothing else, light or dark as its reader is."""
    rows = ordered(manifest)
    height = _TOP + _ROW * len(rows) + 14
    most = max((number for _, number, _ in rows), default=1)
    counts = manifest.counts
    title = f"{manifest.stage}: {counts.in_ - counts.out:,} of {counts.in_:,} {manifest.unit} dropped"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        "<style>text{font:15px system-ui,sans-serif;fill:#1d2526}.t{font-size:18px;font-weight:600}"
        ".s{fill:#5c686a}.p{fill:#fff}.b{fill:#c2683c}"
        "@media(prefers-color-scheme:dark){text{fill:#e6e9e6}.s{fill:#98a5a6}.p{fill:#192124}.b{fill:#dd8f66}}</style>",
        f'<rect class="p" width="{_WIDTH}" height="{height}"/>',
        f'<text class="t" x="20" y="34">{escape(title)}</text>',
        f'<text class="s" x="20" y="57">{counts.out:,} kept. In brackets: the share of what went in.</text>',
    ]
    for place, (rule, number, share) in enumerate(rows):
        y = _TOP + _ROW * place
        length = max(_BAR * number / most, 2)
        end = _LABEL + length + 10
        lines += [
            f'<text x="{_LABEL - 12}" y="{y + 19}" text-anchor="end">{escape(rule)}</text>',
            f'<rect class="b" x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="22" rx="2"/>',
            f'<text x="{end:.1f}" y="{y + 19}">{number:,} <tspan class="s">({share:.1%})</tspan></text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
