"""The one tree of errors: each says what went wrong, where, what was expected and what to do.

Raise these for anything a user can act on; `assert` is for invariants that only a bug can break.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence

from tasks.contracts.redaction import without_secrets


class HeadwaterError(Exception):
    """A failure that a person can act on; secrets of URLs are left out of whatever it is told.

    Args:
        problem: one sentence saying what went wrong.
        where: the file, section or record it happened at.
        expected: what would have been right.
        found: what was there instead.
        fix: what the reader should do next.
    """

    exit_code = 1
    transient = False

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = without_secrets(problem)
        self.where, self.expected, self.found, self.fix = (
            without_secrets(text) if text else text for text in (where, expected, found, fix)
        )
        super().__init__(self.problem)

    def __str__(self) -> str:
        named = {"where": self.where, "expected": self.expected, "found": self.found, "do": self.fix}
        lines = [self.problem, *(f"  {name}: {text}" for name, text in named.items() if text)]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling, so that an error raised in a worker process keeps its parts."""
        return (_rebuild, (type(self), self.problem, self.where, self.expected, self.found, self.fix))


def _rebuild(
    kind: type[HeadwaterError],
    problem: str,
    where: str | None,
    expected: str | None,
    found: str | None,
    fix: str | None,
) -> HeadwaterError:
    return kind(problem, where=where, expected=expected, found=found, fix=fix)


def together(faults: Sequence[HeadwaterError], problem: str) -> ParamsError:
    """Return one error that says several; a single one keeps its own words.

    Args:
        problem: one sentence for all of them, after their number, such as "things keep this run from starting".
    """
    if len(faults) == 1:
        (one,) = faults
        return ParamsError(one.problem, where=one.where, expected=one.expected, found=one.found, fix=one.fix)
    listed = [f"{number}. {fault}".replace("\n", "\n     ") for number, fault in enumerate(faults, start=1)]
    return ParamsError(f"{len(faults)} {problem}", found="\n    ".join(["", *listed]))


def raised(check: Callable[[], object]) -> Iterator[HeadwaterError]:
    """Yield the error that a check raises, if it does."""
    try:
        check()
    except HeadwaterError as error:
        yield error


def did_you_mean(word: str, allowed: Iterable[str]) -> str | None:
    """Return the question for a word that is nearly one of those that are allowed, None where none is near.

    >>> did_you_mean("extrakt", ["crawl", "extract"]), did_you_mean("x", ["crawl", "extract"])
    ('did you mean extract?', None)
    >>> did_you_mean("PII", ["length", "pii"])
    'did you mean pii?'
    """
    names = {name.casefold(): name for name in allowed}
    close = difflib.get_close_matches(word.casefold(), list(names), n=1)
    return f"did you mean {names[close[0]]}?" if close else None


class ParamsError(HeadwaterError):
    """A setting that is unknown, of the wrong type or impossible."""

    exit_code = 2


class UsageError(HeadwaterError):
    """A command called in a way that cannot work."""

    exit_code = 2


class InputError(HeadwaterError):
    """Input that cannot be used as a whole (one bad document is a ledger row instead)."""


class NetworkError(HeadwaterError):
    """A remote side that did not answer; the same call may succeed later, so a flow retries it."""

    transient = True


class RefusedError(NetworkError):
    """A remote side that may not be asked, by a rule of ours: an address, a certificate, robots.txt, working offline.

    Another try is refused as this one was, so no flow retries it.
    """

    transient = False


class ToolMissingError(HeadwaterError):
    """A program or package that this stage needs is not installed."""


class DiskFullError(HeadwaterError):
    """No space left where a file had to be written; nothing half-written was kept."""


class LockedError(HeadwaterError):
    """Another run is at work in the same workspace."""


class ManifestError(HeadwaterError):
    """A manifest that is missing, unreadable, or does not match the files beside it."""


class ConservationError(ManifestError):
    """A stage lost or invented rows: in != out + dropped."""


class CorpusTooSmallError(HeadwaterError):
    """Too little text is left for what comes next."""


class ModelError(HeadwaterError):
    """A program that makes a model failed."""


class TrainingError(HeadwaterError):
    """Training could not start, go on or be resumed."""


class GateError(HeadwaterError):
    """The gate said no: the release does not happen."""
