"""Write all papers of a release into its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.contracts.files import write_bytes
from training.papers.ab2013 import ab2013
from training.papers.croissant import croissant
from training.papers.data_card import data_card
from training.papers.eu_summary import eu_summary_json, eu_summary_markdown
from training.papers.facts import Facts
from training.papers.mlbom import mlbom
from training.papers.model_card import model_card
from training.papers.prov import prov
from training.papers.sources import sources_json

PAPERS: Mapping[str, Callable[[Facts], bytes]] = {
    "README.md": model_card,
    "data_card.md": data_card,
    "sources.json": sources_json,
    "croissant.json": croissant,
    "eu_ai_act_summary.md": eu_summary_markdown,
    "eu_ai_act_summary.json": eu_summary_json,
    "ab2013.md": ab2013,
    "mlbom.cdx.json": mlbom,
    "prov.jsonld": prov,
}
"""File name → the pure function that makes its bytes."""


def write_papers(facts: Facts, folder: Path) -> None:
    """Write every paper."""
    for name, paper in PAPERS.items():
        write_bytes(folder / name, paper(facts))
