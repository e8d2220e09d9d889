"""For the doctests of rules: `document("some text", url=…)` makes a document of a text."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.contracts.document import Document


def document(text: str = "…", **fields: Any) -> Document:
    """Return a document with this text; what is not named is empty."""
    return Document(**{"doc_id": "1", "url": "", "host": "", "record_id": "1", "source": "x", "text": text, **fields})


@pytest.fixture(autouse=True)
def _document_in_doctests(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["document"] = document
