"""Mask personal data: e-mail and IP addresses, phone, payment card, bank account and national identity numbers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from pydantic import field_validator

from tasks.contracts.base import Drop, Edit, Rule
from tasks.contracts.document import Document

Kind = Literal["email", "ip", "phone", "card", "iban", "national_id"]

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
_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w-])")
# United States: no area 000, 666 or 9xx, no group 00, no serial 0000 (Social Security Administration).
_US_SSN = re.compile(r"(?<![\w./+-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-]|\.\d)")
# United Kingdom: the letters and prefixes that HM Revenue and Customs gives out (manual NIM39110).
_UK_NINO = re.compile(
    r"(?<![\w-])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?![\w-])"
)
_ES_DNI = re.compile(r"(?<![\w.-])(\d{8})-?([A-HJ-NP-TV-Z])(?![\w-])")
_ES_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_IBAN_LENGTHS = range(15, 35)  # ISO 13616: from Norway's 15 characters to the largest that is allowed


class Pii(Rule):
    """Which kinds are looked for, and what is done about them.

    Card numbers must pass the Luhn check (ISO/IEC 7812-1, annex B), bank account numbers (IBAN) the remainder 1 modulo
    97 (ISO 13616, ISO/IEC 7064); IP addresses must be public (the IANA registries) unless asked otherwise, and a
    number after "version" or "==" is none; phone numbers are international (E.164: 8 to 15 digits after "+") or North
    American with the area code in brackets; national identity numbers are those of the United States (SSN), the
    United Kingdom (national insurance) and Spain (DNI, with its check letter).

    >>> Pii()(document("Version 1.2.3.4 listens on 192.168.0.1."))
    >>> edit = Pii()(document("Write to jane@corp.example or call +44 20 7946 0958."))
    >>> edit.text, edit.detail
    ('Write to <email> or call <phone>.', 'email: 1, phone: 1')
    """

    kinds: tuple[Kind, ...] = ("email", "ip", "phone", "card", "iban", "national_id")
    """What is looked for."""
    action: Literal["mask", "drop"] = "mask"
    """Whether it is masked or the document is dropped."""
    public_ip_only: bool = True
    """Whether addresses of private and other special networks stay."""
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

    def __call__(self, document: Document) -> Drop | Edit | None:
        text = document.text
        counts: dict[str, int] = {}
        for finder in _FINDERS:
            if finder.kind not in self.kinds or not any(sign in text for sign in finder.signs):
                continue
            mask = self.placeholder.format(kind=finder.kind)
            meant = finder.meant if self.public_ip_only or finder.kind != "ip" else _any_ip
            text, found = _masked(text, finder.pattern, meant, mask)
            if found:
                counts[finder.kind] = counts.get(finder.kind, 0) + found
        if not counts:
            return None
        detail = ", ".join(f"{kind}: {n}" for kind, n in sorted(counts.items()))
        total = float(sum(counts.values()))
        if self.action == "drop":
            return Drop(score=total, detail=detail)
        return Edit(text=text, score=total, detail=detail)


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


def _any_ip(match: re.Match[str]) -> bool:
    if _VERSION_BEFORE.search(match.string, max(0, match.start() - 16), match.start()):
        return False
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return False
    # Of IPv6, "::" alone and the like are operators and slices more often than addresses.
    return "." in match[0] or sum(map(str.isalnum, match[0])) >= 3


def _iban(match: re.Match[str]) -> bool:
    number = match[0].replace(" ", "")
    if len(number) not in _IBAN_LENGTHS:
        return False
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def _dni(match: re.Match[str]) -> bool:
    return _ES_LETTERS[int(match[1]) % 23] == match[2]


class _Finder(NamedTuple):
    """One kind's expression, what else a match must be, and texts of which one stands in every match."""

    kind: Kind
    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    meant: Callable[[re.Match[str]], bool]


_DIGITS = tuple("0123456789")
# Cards and accounts before phones: their groups of digits could be read as a phone number's.
_FINDERS = (
    _Finder("email", ("@",), _EMAIL, _any),
    _Finder("iban", _DIGITS, _IBAN, _iban),
    _Finder("card", _DIGITS, _CARD, _luhn),
    _Finder("national_id", ("-",), _US_SSN, _any),
    _Finder("national_id", _DIGITS, _UK_NINO, _any),
    _Finder("national_id", _DIGITS, _ES_DNI, _dni),
    _Finder("ip", (":",), _IPV6, _public_ipv6),
    _Finder("ip", _DIGITS, _IPV4, _public_ipv4),
    _Finder("phone", ("+",), _INTERNATIONAL, _phone),
    _Finder("phone", ("(",), _NORTH_AMERICAN, _any),
)
