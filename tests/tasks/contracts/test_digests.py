"""A stated digest is held against the bytes in whatever spelling archives have it."""

import base64
import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.digests import other_digest

SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "base 32": lambda raw: base64.b32encode(raw).decode(),
    "small letters": lambda raw: base64.b32encode(raw).decode().lower(),
    "no padding": lambda raw: base64.b32encode(raw).decode().rstrip("="),
    "hexadecimal": lambda raw: raw.hex(),
    "capital hexadecimal": lambda raw: raw.hex().upper(),
}
LABELS = {"sha1": "sha1", "SHA-1": "sha1", "sha256": "sha256", "sha-256": "sha256", "sha512": "sha512", "md5": "md5"}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("label", LABELS)
@given(content=st.binary(max_size=40))
def test_right_is_right_and_wrong_is_wrong_in_every_spelling(label: str, spelling: str, content: bytes) -> None:
    stated = f"{label}:{SPELLINGS[spelling](hashlib.new(LABELS[label], content).digest())}"
    assert other_digest(stated, content) is None
    assert other_digest(f" {stated} ", content) is None
    found = other_digest(stated, content + b"x")
    assert found is not None
    assert found != stated
    assert other_digest(found, content + b"x") is None


@pytest.mark.parametrize("stated", ["", "sha1", "sha1:", "sha1:!!!", "blake3:AA", "sha1:ABCD", "md5:" + "8" * 20, ":"])
def test_what_cannot_be_told_is_no_fault(stated: str) -> None:
    assert other_digest(stated, b"x") is None
