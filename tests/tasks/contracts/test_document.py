from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.document import Document, make_doc_id, read_documents, write_documents
from tasks.contracts.errors import InputError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
documents = st.builds(
    Document,
    doc_id=text,
    url=text,
    host=text,
    record_id=text,
    source=text,
    text=text,
    warc_offset=st.none() | st.integers(0, 2**60),
    language=st.none() | st.sampled_from(["en", "de"]),
    language_score=st.none() | st.floats(0, 1),
    opt_out=st.lists(text, max_size=3).map(tuple),
    scores=st.dictionaries(text, st.floats(allow_nan=False), max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(documents, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Document]) -> None:
    path = tmp_path_factory.mktemp("shard") / "part-00000.parquet"
    assert write_documents(path, rows) == len(rows)
    assert list(read_documents(path)) == rows


def test_equal_rows_give_equal_bytes_whatever_the_order_of_their_scores(tmp_path: Path) -> None:
    one = Document(doc_id="1", url="u", host="h", record_id="r", source="s", text="t", scores={"a": 1.0, "b": 2.0})
    two = Document(doc_id="1", url="u", host="h", record_id="r", source="s", text="t", scores={"b": 2.0, "a": 1.0})
    write_documents(tmp_path / "1", [one])
    write_documents(tmp_path / "2", [two])
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_doc_id_is_stable_and_tells_sources_and_records_apart() -> None:
    assert make_doc_id("sample", "<urn:uuid:1>") == hashlib.sha256(b"sample\n<urn:uuid:1>").hexdigest()[:32]
    assert len({make_doc_id("a", "bc"), make_doc_id("ab", "c"), make_doc_id("a", "b"), make_doc_id("b", "b")}) == 4


def test_a_file_that_is_no_shard_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="part-00000"):
        list(read_documents(tmp_path / "part-00000.parquet"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="other columns"):
        list(read_documents(tmp_path / "other.parquet"))
