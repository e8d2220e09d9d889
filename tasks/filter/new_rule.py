"""A filter to start from: a file that works as it is, for somebody to change."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from tasks.contracts.errors import UsageError
from tasks.filter.loading import available, class_name

FOLDER = Path("tasks/filter/rules")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_IMPORTED = frozenset({"Document", "Drop", "Measured", "Rule"})
_TEMPLATE = '''\
"""Drop documents that shout: too many of their words end in an exclamation mark."""

from __future__ import annotations

from tasks.contracts.base import Drop, Measured, Rule, threshold
from tasks.contracts.document import Document


class CLASS(Rule):
    """How many such words a document may have. The default is ours: name the paper here where there is one.

    >>> CLASS()(document("One word of these is loud!"))
    >>> CLASS()(document("Buy! Buy! Now!")).rule
    'max_share'
    """

    max_share: float = threshold(0.5, ge=0, le=1)
    """Largest share of words that end in an exclamation mark."""

    def measure(self, document: Document) -> Measured:
        """Return the share of such words; it is kept, so no threshold is looked at here."""
        words = document.text.split()
        return Measured(values={"share": sum(word.endswith("!") for word in words) / max(1, len(words))})

    def decide(self, measured: Measured) -> Drop | None:
        """Return why the document is dropped, or None."""
        share = measured.values["share"]
        if share > self.max_share:
            return Drop(rule="max_share", score=share, threshold=self.max_share)
        return None
'''


def rule_to_start_from(name: str) -> str:
    """Return the text of a new filter's file.

    Raises:
        UsageError: a name that no module or no filter can have, or that one has already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or class_name(name) in _IMPORTED:
        raise UsageError(
            "a filter cannot be called so",
            expected="small letters, digits and single underscores, a letter first, such as exclamations; "
            f"no word of Python's, nor {', '.join(sorted(one.lower() for one in _IMPORTED))}",
            found=repr(name),
        )
    if name in available():
        raise UsageError(
            f"there is a filter {name} already",
            where=(FOLDER / f"{name}.py").as_posix(),
            fix=f"take another name, or change that file; `headwater filters show {name}` says what it does",
        )
    return _TEMPLATE.replace("CLASS", class_name(name))
