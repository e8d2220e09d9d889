"""Our decoders beside a browser's own: each pair of bytes becomes the same text in both, in every encoding."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from webencodings.labels import LABELS

from tasks.contracts.encodings import decode_as, encoding_of
from tests.e2e.browser import Page, browser
from tests.tasks.contracts.test_encodings import every_pair

pytestmark = pytest.mark.e2e
READ = """(async (label, content) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    return JSON.stringify(new TextDecoder(label, {ignoreBOM: true}).decode(bytes));
})(%s, %s)"""
ENCODINGS = sorted({*LABELS.values()} - {"replacement"})  # which TextDecoder refuses by name
# Where Chromium 156 is not as the standard is: half a surrogate pair for a letter with its accent, and U+FFFD for the
# ideographic space.
FAULTS = {"big5": {"Ê̄", "Ê̌", "ê̄", "ê̌"}, "euc-jp": {"\u3000"}}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as one:
        yield one


def read_there(page: Page, label: str, body: bytes) -> str:
    text: str = json.loads(page.run(READ % (json.dumps(label), json.dumps(base64.b64encode(body).decode()))))
    return text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bytes_are_read_as_a_browser_reads_them(page: Page, encoding: str) -> None:
    body = every_pair(encoding)
    here, there = decode_as(encoding, body).split("\n"), read_there(page, encoding, body).split("\n")
    assert len(here) == len(there)
    differs = {ours for ours, theirs in zip(here, there, strict=True) if ours != theirs}
    assert differs == FAULTS.get(encoding, set())


def test_a_browser_knows_the_same_labels(page: Page) -> None:
    names = page.run(
        f"JSON.stringify({json.dumps(sorted(LABELS))}.map((label) => "
        "{ try { return new TextDecoder(label).encoding; } catch (error) { return 'replacement'; } }))"
    )
    assert [encoding_of(label) for label in sorted(LABELS)] == json.loads(names)
