"""How else a short item may be written: the operators of its sums, its long numbers, the label before its answer.

"What is 7 x 8?" leaks as "What is 7 × 8?", `7 \\times 8` or "7 times 8", and "1,234 + 5" as "1234 + 5". Only items are
spelled anew, when the index is made, so no page costs more for it. Other words for the same question ("double 7"),
numbers in words and raised digits are not tried.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from tasks.decontaminate.folding import without_entities
from tasks.decontaminate.forms import written

_LEFT = r"(?:(?<=[\d)\]}])|(?<=\b[A-Za-z]))[ \t]*"  # an operand before, and one after
_RIGHT = r"[ \t]*(?=[\d(\[{€£\\]|[A-Za-z]\b)"
_READ = tuple(
    (re.compile(pattern), symbol)
    for pattern, symbol in (
        (r"\$|\\[()\[\]]", ""),  # where mathematics begins and ends
        (r"\\([-+*^%_])", r"\1"),  # as Markdown escapes them
        (r"\\[dt]?frac[ \t]*\{([^{}]+)\}[ \t]*\{([^{}]+)\}", r"\1/\2"),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\*\*", "^"),
        (r"(?<=\d)[ \t]*[xX][ \t]*(?=\d)", "*"),
        (r"(?<=\d)[ \t]*:[ \t]*(?=\d)", "/"),
        (rf"{_LEFT}\bplus\b{_RIGHT}", " + "),
        (rf"{_LEFT}\bminus\b{_RIGHT}", " - "),
        (rf"{_LEFT}\b(?:times|multiplied by)\b{_RIGHT}", " * "),
        (rf"{_LEFT}\b(?:divided by|over)\b{_RIGHT}", " / "),
        (rf"{_LEFT}\bmod\b{_RIGHT}", " % "),
    )
)
_RAISED = re.compile("[⁰¹²³⁴-⁹]+")
_OPERATOR = re.compile(rf"{_LEFT}([-+*/^%]){_RIGHT}")
_FRACTION = re.compile(r"(?<!\d)(\d++)[ \t]*/[ \t]*(\d+)")
_LISTED = re.compile(r"(?<=\d), +(?=\d)")
_PERCENT = re.compile(r"(?<=\d)[ \t]*%")
_ASKED_IN_WORDS = re.compile(r"[^\d\n]*[\s:]([-(\d][-+*/^%().,\d ]*?)[ =?.]*\n(.*)")
"""A sum at the end of a question, and the answer: what is left of "What is 7 x 8?" where only the sum leaked."""
_RESULT = re.compile(r"[ \t]*=[ \t]*(-?\d[\d.,/]*[ \t.]*)\Z")
_STYLES: tuple[dict[str, str], ...] = (
    {},
    {"*": r" \times ", "/": r" \div "},
    {"*": r" \cdot "},
    {"*": " x "},
    {"*": "x"},
    {"^": "**", "%": " mod "},
    {"+": " plus ", "-": " minus ", "*": " times ", "/": " divided by "},
    {"+": " plus ", "-": " minus ", "*": " multiplied by ", "/": " over "},
)
_NUMBER = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)(?:[.,](\d+))?(?![\d.,]*\d)")
_GROUPS = (("", "."), ("", ","), (",", "."), (".", ","), (" ", "."), (" ", ","))
"""What stands between thousands, and before a fraction."""
LONGEST_CHARACTERS = 200
"""Characters of a text that is spelled anew; short items have few words, but might be padded."""
_BETWEEN = (" ", " A: ", " Answer: ")
_BETWEEN_SUM_AND_RESULT = (" is ", " equals ")
"""What stands between a question and its answer; "the capital of France is Paris" would be no leak."""


def spellings(text: str) -> Iterator[str]:
    r"""Yield a short text as it is, and then as it may be written otherwise.

    Args:
        text: a line break stands between a question and its answer, and does so in what is yielded.

    >>> list(spellings("7 x 8"))[:5]
    ['7 x 8', '7*8', '7 \\times 8', '7 \\cdot 8', '7x8']
    """
    if len(text) > LONGEST_CHARACTERS:
        yield text
        return
    plain = _read(text)
    if "\n" not in plain and _OPERATOR.search(plain):
        plain = _RESULT.sub(r"\n\1", plain)
    asked = _ASKED_IN_WORDS.fullmatch(plain)
    bare = _respelled(f"{asked[1]}\n{asked[2]}") if asked else ()
    yield from dict.fromkeys([text, *_respelled(plain), *bare])


def joined(text: str) -> Iterator[str]:
    r"""Yield a spelling as one piece of text: question and answer with what may stand between the two, nothing first.

    >>> list(joined("Capital of Peru?\nLima"))
    ['Capital of Peru? Lima', 'Capital of Peru? A: Lima', 'Capital of Peru? Answer: Lima']
    """
    question, border, answer = text.partition("\n")
    if not border:
        yield text
        return
    yield from (f"{question}{between}{answer}" for between in _BETWEEN)
    if _OPERATOR.search(_read(question)):
        yield from (f"{question}{between}{answer}" for between in _BETWEEN_SUM_AND_RESULT)


def _read(text: str) -> str:
    """Return a text with every operator as one sign of ASCII."""
    text = _RAISED.sub(lambda digits: f"^{unicodedata.normalize('NFKC', digits[0])}", without_entities(text))
    text = written(text).replace("√", "sqrt ")
    for pattern, symbol in _READ:
        text = pattern.sub(symbol, text)
    return text


def _respelled(text: str) -> Iterator[str]:
    yield text
    yield _PERCENT.sub(" percent", text)
    yield _LISTED.sub(",", text)
    if not _OPERATOR.search(text):
        return
    for group, point in _GROUPS:
        grouped = _NUMBER.sub(lambda number: _grouped(number, group, point), text)  # noqa: B023 - used at once
        for style in _STYLES:
            yield _OPERATOR.sub(lambda found: style.get(found[1], found[0]), grouped)  # noqa: B023
        yield _FRACTION.sub(r"\\frac{\1}{\2}", grouped)
        yield _FRACTION.sub(r"\\dfrac{\1}{\2}", grouped)


def _grouped(number: re.Match[str], group: str, point: str) -> str:
    digits = re.sub(r"\D", "", number[1])
    first = len(digits) % 3 or 3
    whole = group.join([digits[:first], *(digits[at : at + 3] for at in range(first, len(digits), 3))])
    return f"{whole}{point}{number[2]}" if number[2] else whole
