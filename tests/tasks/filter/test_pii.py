"""Personal data is masked; what only looks like it stays."""

import pytest

from tasks.contracts.base import Edit
from tasks.contracts.document import Document
from tasks.filter.rules.pii import Pii


def masked(text: str) -> str:
    edit = Pii()(Document(doc_id="1", url="", host="", record_id="1", source="x", text=text))
    assert edit is None or isinstance(edit, Edit)
    return edit.text if edit else text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("joe.b+x@mail.corp.example, hi", "<email>, hi"),
        ("from 8.8.8.8.", "from <ip>."),
        ("at 2001:4860:4860::8888 now", "at <ip> now"),
        ("call +1 (555) 010-4477 now", "call <phone> now"),
        ("call (555) 010-4477.", "call <phone>."),
        ("card 4111 1111 1111 1111 ok", "card <card> ok"),
        ("card 378282246310005 ok", "card <card> ok"),
    ],
)
def test_personal_data_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4 and ==8.8.8.8 and v8.8.4.4",
        "127.0.0.1 10.0.0.1 192.168.1.1 203.0.113.9 ::1 fe80::1 999.1.1.1",
        "card 4111 1111 1111 1112",
        "2026-11-21 12:30:45, 1234567890123456789012",
        "x[1::2] std::vector a::b @decorator user@host",
        "a = b +12 and 1 + 2",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert masked(text) == text
