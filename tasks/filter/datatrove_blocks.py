"""datatrove's filter blocks, called with our documents: their answer becomes a Drop or an Edit."""

from __future__ import annotations

from typing import Any

from datatrove.data import Document as Datum
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document


def is_block(thing: object) -> bool:
    """Return whether this is a datatrove filter."""
    return isinstance(thing, BaseFilter)


def judge(name: str, block: Any, document: Document) -> Drop | Edit | None:
    """Return a block's answer about a document; the ledger's rule is `name` and the block's reason."""
    metadata = {"url": document.url, "language": document.language, "language_score": document.language_score}
    datum = Datum(text=document.text, id=document.doc_id, metadata=metadata)
    keep, reason = get_filter_result(block.filter(datum))
    if not keep:
        return Drop(rule=f"{name}.{reason or 'dropped'}")
    if datum.text != document.text:
        lines = document.text.count("\n") + 1
        left = datum.text.count("\n") + 1 if datum.text else 0
        return Edit(
            rule=name,
            text=datum.text,
            score=float(lines - left),
            detail=f"{lines - left} of {lines} lines removed",
        )
    return None
