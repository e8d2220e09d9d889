"""Which example of an adaptation a text is: a turn of it, or what its turns say one after the other.

Examples are short and few beside pages, so they are read through: no index of shingles finds a text of four words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.proof.trace_texts import Match
from tasks.contracts.chats import from_text
from tasks.contracts.document import read_documents
from tasks.contracts.manifest import text_shards
from tasks.contracts.normal_form import normal_form

STAGES = ("examples", "decontaminate")
"""As the examples were brought, and as they were learnt from: filters mask some of what they say."""


def find_example(data: Path, text: str) -> Match | None:
    """Return the first example that says a text, None where none does.

    Args:
        data: the folder of the adaptation's stages.
    """
    wanted = normal_form(text)
    for stage in STAGES:
        for shard in text_shards(data / stage):
            for document in read_documents(data / stage / shard.name):
                if wanted in _said(document.text):
                    return Match(
                        doc_id=document.doc_id,
                        url=document.url,
                        stage=f"{data.name}/{stage}",
                        equal=True,
                        jaccard=1.0,
                        contained=1.0,
                    )
    return None


def _said(text: str) -> Iterator[str]:
    turns = [normal_form(said) for _, said in from_text(text) or ()]
    yield " ".join(turns)
    yield from turns
