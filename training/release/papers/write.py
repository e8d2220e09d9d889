"""Write all papers of a release into its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.contracts.durable_files import write_bytes
from tasks.contracts.files import SOURCES_NAME
from tasks.contracts.release import (
    AB2013_NAME,
    BILL_NAME,
    CROISSANT_NAME,
    DATA_CARD_NAME,
    EU_SUMMARY_JSON_NAME,
    EU_SUMMARY_NAME,
    MODEL_CARD_NAME,
    PROV_NAME,
)
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
    MODEL_CARD_NAME: model_card,
    DATA_CARD_NAME: data_card,
    SOURCES_NAME: lambda facts: sources_json(facts.sources),
    CROISSANT_NAME: croissant,
    EU_SUMMARY_NAME: eu_summary_markdown,
    EU_SUMMARY_JSON_NAME: eu_summary_json,
    AB2013_NAME: ab2013,
    BILL_NAME: mlbom,
    PROV_NAME: prov,
}
"""File name → the pure function that makes its bytes."""


def write_papers(facts: Facts, folder: Path) -> None:
    """Write every paper."""
    for name, paper in PAPERS.items():
        write_bytes(folder / name, paper(facts))
