"""Mask personal data: e-mail addresses, public IP addresses, phone numbers and payment card numbers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Literal

from pydantic import field_validator

from tasks.contracts.base import Edit, FrozenModel
from tasks.contracts.document import Document

Kind = Literal["email", "ip", "phone", "card"]

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_IPV4 = re.compile(r"(?<![\w.:/=<>~^-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION_BEFORE = re.compile(r"(?:\bversions?|\brelease[sd]?|\bver\.?|\bv\.?|[=<>~!]=?)\s*$", re.IGNORECASE)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # RFC 4291, section 2.4: what is given out so far
_INTERNATIONAL = re.compile(
    r"(?<![\w+*/=^.-])\+[1-9]\d{0,2}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{1,4}){2,6}(?![\w]|[.-]\d)"
)
_NORTH_AMERICAN = re.compile(r"(?<![\w)])\(\d{3}\) ?\d{3}[-. ]\d{4}(?![\w-])")
_CARD = re.compile(r"(?<![\w.+-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)")


class Pii(FrozenModel):
    """Which kinds are masked, and by what.

    Card numbers must pass the Luhn check (ISO/IEC 7812-1, annex B); IP addresses must be public (the IANA
    registries), and a number after "version" or "==" is none; phone numbers are international (E.164: 8 to 15
    digits after "+") or North American with the area code in brackets.

    >>> page = dict(doc_id="1", url="", host="", record_id="1", source="x")
    >>> Pii()(Document(**page, text="Version 1.2.3.4 listens on 192.168.0.1."))
    >>> edit = Pii()(Document(**page, text="Write to jane@corp.example or call +44 20 7946 0958."))
    >>> edit.text, edit.detail
    ('Write to <email> or call <phone>.', 'email: 1, phone: 1')
    """

    kinds: tuple[Kind, ...] = ("email", "ip", "phone", "card")
    """What is masked."""
    placeholder: str = "<{kind}>"
    """What stands in its place; {kind} becomes the kind's name."""

    @field_validator("placeholder")
    @classmethod
    def _formats(cls, placeholder: str) -> str:
        try:
            placeholder.format(kind="email")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError("a text in which {kind}, and nothing else, stands in braces") from error
        return placeholder

    def __call__(self, document: Document) -> Edit | None:
        text = document.text
        counts: dict[str, int] = {}
        for kind, pattern, meant in _FINDERS:
            if kind not in self.kinds:
                continue
            mask = self.placeholder.format(kind=kind)
            text, found = _masked(text, pattern, meant, mask)
            if found:
                counts[kind] = counts.get(kind, 0) + found
        if not counts:
            return None
        detail = ", ".join(f"{kind}: {n}" for kind, n in sorted(counts.items()))
        return Edit(rule="pii", text=text, score=float(sum(counts.values())), detail=detail)


def _masked(text: str, pattern: re.Pattern[str], meant: Callable[[re.Match[str]], bool], mask: str) -> tuple[str, int]:
    found = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal found
        if not meant(match):
            return match[0]
        found += 1
        return mask

    return pattern.sub(replace, text), found


def _any(match: re.Match[str]) -> bool:
    return bool(match[0])


def _public_ipv4(match: re.Match[str]) -> bool:
    if _VERSION_BEFORE.search(match.string, max(0, match.start() - 16), match.start()):
        return False
    try:
        return ipaddress.IPv4Address(match[0]).is_global
    except ValueError:
        return False


def _public_ipv6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    return address in _GLOBAL_IPV6 and address.is_global


def _phone(match: re.Match[str]) -> bool:
    return 8 <= sum(character.isdigit() for character in match[0]) <= 15


def _luhn(match: re.Match[str]) -> bool:
    digits = [int(character) for character in match[0] if character.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


# Cards before phones: a card number's groups could be read as a phone number's.
_FINDERS: tuple[tuple[Kind, re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    ("email", _EMAIL, _any),
    ("card", _CARD, _luhn),
    ("ip", _IPV6, _public_ipv6),
    ("ip", _IPV4, _public_ipv4),
    ("phone", _INTERNATIONAL, _phone),
    ("phone", _NORTH_AMERICAN, _any),
)
