"""Keys and passwords that pages show by mistake: masked, or the page dropped, so that no model learns them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tasks.contracts.base import Drop, Edit, Rule
from tasks.contracts.document import Document


@dataclass(frozen=True, slots=True)
class _Form:
    """One kind of secret.

    Attributes:
        signs: texts of which one stands in every match, so that the expression is rarely asked.
        pattern: group 1 is the secret.
    """

    kind: str
    signs: tuple[str, ...]
    pattern: re.Pattern[str]


def _form(kind: str, signs: tuple[str, ...], pattern: str, flags: int = 0) -> _Form:
    return _Form(kind, signs, re.compile(pattern, flags))


# The prefixes and lengths are those that each service documents for its keys.
_FORMS = (
    _form(
        "private_key",
        ("PRIVATE KEY",),
        r"(-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----)){40,20000}+"
        r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)",
    ),
    _form("aws", ("AKIA", "ASIA"), r"(?<![A-Z0-9])((?:AKIA|ASIA)[A-Z0-9]{16})(?![A-Z0-9])"),
    _form("github", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\b(gh[pousr]_[A-Za-z0-9]{36,255})\b"),
    _form("github", ("github_pat_",), r"\b(github_pat_[A-Za-z0-9_]{82})\b"),
    _form("gitlab", ("glpat-",), r"\b(glpat-[A-Za-z0-9_-]{20,64})(?![\w-])"),
    _form("slack", ("xox",), r"\b(xox[abeoprs]-[A-Za-z0-9-]{20,200})"),
    _form("google", ("AIza",), r"\b(AIza[A-Za-z0-9_-]{35})(?![\w-])"),
    _form("stripe", ("k_live_", "k_test_"), r"\b([sr]k_(?:live|test)_[A-Za-z0-9]{16,200})\b"),
    _form("npm", ("npm_",), r"\b(npm_[A-Za-z0-9]{36})\b"),
    _form("pypi", ("pypi-AgEI",), r"\b(pypi-AgEI[A-Za-z0-9_-]{50,500})"),
    _form("hugging_face", ("hf_",), r"\b(hf_[A-Za-z0-9]{34,40})\b"),
    _form("openai", ("sk-",), r"\b(sk-(?:proj-|svcacct-|ant-)?[A-Za-z0-9_-]{32,200})(?![\w-])"),
    _form("sendgrid", ("SG.",), r"\b(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})(?![\w-])"),
    _form("jwt", ("eyJ",), r"\b(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,})"),
    _form("password", ("://",), r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{1,64}:([^\s/:@\"'<>{}$]{6,64})@[\w.-]+"),
    _form(
        "assigned",
        ("key", "KEY", "Key", "ecret", "ECRET", "oken", "OKEN", "assw", "ASSW"),
        r"(?:api[_-]?key|secret|access[_-]?key|auth[_-]?token|token|passw(?:or)?d)[\"']?\s*(?:=>|[:=])\s*"
        r"[\"']([A-Za-z0-9+/_=.~-]{16,128})[\"']",
        re.IGNORECASE,
    ),
)
KINDS = tuple(dict.fromkeys(form.kind for form in _FORMS))
_PLACEHOLDER = re.compile(r"example|sample|placeholder|your|changeme|xxxx|0123456789|abcdefgh", re.IGNORECASE)


class Secrets(Rule):
    """What is looked for, and what is done about it.

    Forms with a service's prefix are taken at their word; all must be as mixed as random text, in bits of entropy a
    character (Shannon 1948), and none may say that it is an example.

    >>> Secrets()(document('Set token = "your-token-goes-here" first.'))
    >>> Secrets()(document('token = "q8Zt2LmX0vBn7RkY4sWd"')).text
    'token = "<secret>"'
    """

    action: Literal["mask", "drop"] = "mask"
    """Whether secrets are masked or the document is dropped."""
    placeholder: str = "<secret>"
    """What stands in a secret's place."""
    min_entropy: float = Field(3.0, ge=0, le=8)
    """Smallest entropy of a secret, in bits a character; random base 64 of 20 characters has about 4."""
    ignore: tuple[str, ...] = ()
    """Kinds that are left alone, such as "jwt"."""

    def __call__(self, document: Document) -> Drop | Edit | None:
        text = document.text
        counts: Counter[str] = Counter()
        for form in _FORMS:
            if form.kind in self.ignore or not any(sign in text for sign in form.signs):
                continue
            text = "".join(self._masked(form, text, counts))
        if not counts:
            return None
        detail = ", ".join(f"{kind}: {number}" for kind, number in sorted(counts.items()))
        total = float(sum(counts.values()))
        if self.action == "drop":
            return Drop(score=total, detail=detail)
        return Edit(text=text, score=total, detail=detail)

    def _masked(self, form: _Form, text: str, counts: Counter[str]) -> Iterator[str]:
        after = 0
        for match in form.pattern.finditer(text):
            if entropy(match[1]) < self.min_entropy or _PLACEHOLDER.search(match[1]):
                continue
            counts[form.kind] += 1
            yield text[after : match.start(1)]
            yield self.placeholder
            after = match.end(1)
        yield text[after:]


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text's characters, in bits a character.

    >>> entropy("abab")
    1.0
    """
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
