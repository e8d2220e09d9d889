"""Write all papers of a release into its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.contracts.durable_files import write_bytes
from training.release.papers.ab2013 import ab2013
from training.release.papers.croissant import croissant
from training.release.papers.data_card import data_card
from training.release.papers.eu_summary import eu_summary_json, eu_summary_markdown
from training.release.papers.facts import Facts
from training.release.papers.mlbom import mlbom
from training.release.papers.model_card import model_card
from training.release.papers.prov import prov
from training.release.papers.sources import sources_json

PAPERS: Mapping[str, Callable[[Facts], bytes]] = {
    "README.md": model_card,
    "data_card.md": data_card,
    "sources.json": lambda facts: sources_json(facts.sources),
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
