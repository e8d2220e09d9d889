"""Preferences about use, as Content-Usage and Content-Signal state them: does one refuse that a model is trained?

Content-Usage is a dictionary of RFC 9651 (draft-ietf-aipref-vocab-08, section 6): an answer that can be read as one is
what the draft makes of it. What is none (other cases, other words for no, a list without commas) the draft calls
unknown; a refusal in it counts here, a permission does not.
"""

from __future__ import annotations

import re

# Uses that are the training of a model that writes, by their names in the drafts of AIPREF (vocab-00 to -08) and of
# Content Signals: one that is refused is a refusal, whatever is said of the others.
TRAINING_USES = ("train-ai", "ai-train", "train-genai", "genai")
# Wider uses of older drafts, the narrowest first: the first that is named decides where none of the above is.
WIDER_USES = ("ai", "tdm", "bots", "all")
NO = frozenset({"n", "no", "false", "?0", "0", "deny", "disallow"})
YES = frozenset({"y", "yes", "true", "?1", "1", "allow"})
# Content Signals: the most that may be done with the content; what is less than "full" is no training.
LIMITED_USES = frozenset({"immediate", "reference"})
_KEY = r"[a-z*][a-z0-9_.*-]*+"
_BARE = (
    r"""(?:[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+|"(?:[ !#-\[\]-~]|\\["\\])*+"|-?\d{1,15}(?:\.\d{1,3})?+|\?[01]"""
    r"|:[A-Za-z0-9+/=]*+:|@-?\d{1,15})"
)
_MEMBER = re.compile(rf"({_KEY})(?:=({_BARE}|\([^()]*+\)))?+(?:;\ *+{_KEY}(?:={_BARE})?+)*+[ \t]*+(,[ \t]*+|$)")
_PIECE = re.compile(r"[^\s,;=:]++|[=:,;]")


def refuses_training(preferences: str) -> bool:
    """Tell whether preferences say no to the training of a model that writes.

    >>> [refuses_training(text) for text in ("train-ai=n, search=y", "bots=n, train-ai=y", "Train-AI=no")]
    [True, False, True]
    """
    strict, loose = _dictionary(preferences), _answers(preferences)

    def answer(use: str) -> str:
        said = (strict or {}).get(use)
        return said if said in ("y", "n") else loose.get(use, "")

    said = [answer(use) for use in TRAINING_USES]
    if any(said):
        return "n" in said
    return next((wider == "n" for use in WIDER_USES if (wider := answer(use))), False)


def refuses_by_signal(signals: str) -> bool:
    """Tell whether a Content-Signal says no to training: by its own words, or since it allows less.

    >>> [refuses_by_signal(text) for text in ("search=yes, ai-train=no", "ai-input=no", "use=reference")]
    [True, False, True]
    """
    return refuses_training(signals) or any(value in LIMITED_USES for key, value in _pairs(signals) if key == "use")


def _dictionary(text: str) -> dict[str, str] | None:
    """Return a dictionary of RFC 9651, section 4.2.2: of equal keys the last counts; None where it is none."""
    found: dict[str, str] = {}
    position = 0
    text = text.strip(" ")
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None or (member[3] and member.end() == len(text)):
            return None
        found[member[1]] = member[2] or "?1"
        position = member.end()
    return found


def _answers(text: str) -> dict[str, str]:
    """Return use → "n" or "y" of a text however it is written; what is said twice is refused if one of them refuses."""
    found: dict[str, str] = {}
    for use, value in _pairs(text):
        if value in NO:
            found[use] = "n"
        elif value in YES:
            found.setdefault(use, "y")
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return (key, value) wherever a "=" or a colon stands between two words, in lower case and without quotes."""
    pieces = [piece.strip("\"'") for piece in _PIECE.findall(text.lower())]
    return [
        (before, after)
        for before, sign, after in zip(pieces, pieces[1:], pieces[2:], strict=False)
        if sign in ("=", ":") and before not in ("=", ":") and after not in ("=", ":", ",", ";")
    ]
