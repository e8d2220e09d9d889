from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.document import Document, make_doc_id, read_documents, write_documents
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.dedup.stage import Params, run


class Outcome:
    """What a dedup run left: survivors and ledger rows, over all parts."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        parts = sorted(p.name for p in folder.glob("part-*.parquet"))
        self.kept: list[Document] = [d for name in parts for d in read_documents(folder / name)]
        self.ledger: list[LedgerRow] = [r for name in parts for r in read_ledger(folder / "dropped" / name)]

    def fates(self) -> dict[str, tuple[str | None, str | None]]:
        """doc_id → (rule, survivor), None for both where the document was kept."""
        fates: dict[str, tuple[str | None, str | None]] = {d.doc_id: (None, None) for d in self.kept}
        return fates | {str(r.doc_id): (r.rule, r.survivor_id) for r in self.ledger}


Dedup = Callable[..., Outcome]


def document(name: str, text: str, **more: Any) -> Document:
    fields: dict[str, Any] = {"url": f"http://pages.example/{name}", "host": "pages.example", **more}
    return Document(
        doc_id=make_doc_id("test", name),
        record_id=name,
        source="test",
        text=text,
        **fields,
    )


@pytest.fixture
def dedup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dedup:
    """Run dedup on documents cut into the given parts."""
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    runs = iter(range(10**6))

    def go(*parts: Sequence[Document], params: Params | None = None) -> Outcome:
        place = tmp_path / f"run-{next(runs)}"
        source = place / "filter"
        source.mkdir(parents=True)
        for index, part in enumerate(parts):
            write_documents(source / f"part-{index:05d}.parquet", part)
        total = sum(map(len, parts))
        commit_manifest(
            source, stage="filter", unit="documents", params={}, inputs={}, counts=Counts(in_=total, out=total)
        )
        manifest = run(params=params or Params(), inputs={"filter": source}, output=place / "dedup")
        return Outcome(place / "dedup", manifest)

    return go
