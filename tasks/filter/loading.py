"""From the list in params.yaml to filters that can be called: only what is listed is imported.

An entry is `NAME: {settings}`, where NAME is a module of `tasks/filter/rules/`, or
`use: package.module:Class` with `with: {arguments}`, which takes any datatrove filter or any other class whose objects
are called with a Document and return None, a Drop or an Edit.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from tasks.contracts.base import Drop, Edit, Measured, Rule
from tasks.contracts.document import Document
from tasks.contracts.durable_files import sha256_path
from tasks.contracts.errors import ParamsError, did_you_mean
from tasks.filter import rules as rules_package
from tasks.filter.broken_filters import Failure, imported, said_of, shown

SECTION = "filter.rules"
OURS = frozenset(
    {"bad_words", "c4", "fineweb", "gopher_quality", "gopher_repetition", "language", "length", "pii",
     "quality_classifier", "refinedweb_lines", "repeated_lines", "secrets", "url"}
)  # fmt: skip
"""Rules that come with Headwater and are tested; any other is somebody's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFilter:
    """One entry of the list, ready to be called.

    Attributes:
        name: the rule's name, or the class's for `use`.
        settings: every setting with its value, defaults included.
        files: files and folders that decide what it does, by the setting that names them.
        own_call: what somebody wrote, to be named when it is wrong; None where only a library's own is called.
        measure, decide: the two halves of a rule's call; None of a class of `use`, which has no halves.
        own_measure: what somebody wrote of `measure`, as own_call.
        measured_by: what decides what `measure` gives.
        scores: measures a document; the answer is then decided from the document's scores alone.
        score_settings: the settings that decide the scores.
    """

    name: str
    settings: Mapping[str, JsonValue]
    call: Callable[[Document], Drop | Edit | None]
    own_call: Callable[..., object] | None = None
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    measure: Callable[[Document], Measured] | None = None
    decide: Callable[[Measured], Drop | Edit | None] | None = None
    own_measure: Callable[..., object] | None = None
    measured_by: Mapping[str, JsonValue] = field(default_factory=dict)
    scores: Callable[[Document], Mapping[str, float]] | None = None
    score_settings: tuple[str, ...] = ()

    def identity(self) -> dict[str, JsonValue]:
        """Return what decides this filter's answers: name, settings and its files' content, not their paths."""
        return {self.name: self._hashed(self.settings)}

    def measured_identity(self) -> dict[str, JsonValue]:
        """Return what decides what this filter measures, and the text that it leaves: thresholds do not."""
        return {self.name: self._hashed(self.measured_by)}

    def score_identity(self) -> dict[str, JsonValue]:
        """Return what decides this filter's scores: thresholds do not."""
        settings = {name: self.settings[name] for name in self.score_settings if name in self.settings}
        return {self.name: self._hashed(settings)}

    def _hashed(self, settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return settings with the content of files instead of their paths."""
        hashed: dict[str, JsonValue] = {
            name: [sha256_path(path) for path in paths]
            for name, paths in self.files.items()
            if name in settings or name not in self.settings
        }
        return {**settings, **hashed}


def available() -> tuple[str, ...]:
    """Return the names of the rules in `tasks/filter/rules/`, sorted, without importing them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(rules_package.__path__)))


def class_name(name: str) -> str:
    """Return the name of the class that a filter's file holds.

    >>> class_name("gopher_quality")
    'GopherQuality'
    """
    return "".join(word.capitalize() for word in name.split("_"))


def rule_class(name: str, where: str = SECTION) -> type[Rule]:
    """Return the class of a rule: `gopher_quality.py` holds `GopherQuality`.

    Raises:
        ParamsError: there is no such rule, or its file holds none that could be asked.
    """
    if name not in available():
        raise ParamsError(
            f"there is no filter {name!r}",
            where=where,
            expected=_nearest(name, available()),
            found=name,
            fix=f"correct the name, or add {rules_package.__name__.replace('.', '/')}/{name}.py",
        )
    problem = f"the filter {name} cannot be loaded"
    module = imported(f"{rules_package.__name__}.{name}", problem, where, f"take {name} off the list")
    expected = class_name(name)
    kind = getattr(module, expected, None)
    if not (isinstance(kind, type) and issubclass(kind, Rule) and (_answers_whole(kind) or _measures(kind))):
        raise ParamsError(
            f"the file of the filter {name} holds none",
            where=where,
            expected=f"class {expected}(Rule) with measure(self, document) and decide(self, measured), or with "
            "__call__(self, document)",
            found=f"{shown(str(module.__file__))}: "
            + (f"{kind!r}" if kind is not None else f"nothing called {expected}"),
            fix="docs/filters.md, Add a filter, shows one",
        )
    return kind


def _answers_whole(kind: type[Rule]) -> bool:
    return kind.__call__ is not Rule.__call__


def _measures(kind: type[Rule]) -> bool:
    return kind.measure is not Rule.measure and kind.decide is not Rule.decide


def _can_be_called(kind: type) -> bool:
    return any("__call__" in vars(base) for base in kind.__mro__)


def load(entries: Sequence[Mapping[str, JsonValue]]) -> list[LoadedFilter]:
    """Return the filters that `entries` list, in that order.

    Raises:
        ParamsError: an unknown rule, an unknown setting, or a value that is not allowed.
    """
    return [load_entry(entry, index) for index, entry in enumerate(entries)]


def load_entry(entry: Mapping[str, JsonValue], index: int) -> LoadedFilter:
    """Return the filter of the list's entry number `index`, as `load`."""
    return _load(entry, f"{SECTION}[{index}]")


def check(entries: Sequence[Mapping[str, JsonValue]]) -> None:
    """Raise ParamsError for an entry that cannot be loaded; classes of `use` are not imported for that."""
    for index, entry in enumerate(entries):
        where = f"{SECTION}[{index}]"
        if "use" in entry:
            _split_use(entry, where)
        else:
            _rule(entry, where)


def named_files(entries: Sequence[Mapping[str, JsonValue]]) -> tuple[str, ...]:
    """Return the files and folders that the rules of `entries` name; what a class of `use` reads is not known.

    Raises:
        ParamsError: an entry that cannot be loaded.
    """
    named: list[str] = []
    for index, entry in enumerate(entries):
        if "use" not in entry:
            _, rule = _rule(entry, f"{SECTION}[{index}]")
            named += [name for setting in rule.paths for name in _names(getattr(rule, setting))]
    return tuple(named)


def _load(entry: Mapping[str, JsonValue], where: str) -> LoadedFilter:
    if "use" in entry:
        return _load_use(entry, where)
    name, rule = _rule(entry, where)
    _check_language(rule, f"{where}.{name}")
    whole, settings = _answers_whole(type(rule)), rule.model_dump(mode="json")
    return LoadedFilter(
        name=name,
        settings=settings,
        call=lambda document: _under(name, rule(document)),
        own_call=rule.__call__ if whole else rule.decide,
        measure=(lambda document: Measured(otherwise=rule(document))) if whole else rule.measure,
        decide=lambda measured: _under(name, measured.otherwise if whole else rule.decide(measured)),
        own_measure=rule.__call__ if whole else rule.measure,
        measured_by=settings if whole else rule.measured_by(),
        files={setting: _paths(rule, setting, f"{where}.{name}") for setting in rule.paths},
        scores=rule.scores if rule.score_settings else None,
        score_settings=rule.score_settings,
    )


def _under(name: str, answer: Drop | Edit | None) -> Drop | Edit | None:
    """Return a rule's answer with the rule's own name before what decided it; one that is no answer as it is."""
    if not isinstance(answer, Drop | Edit) or not isinstance(answer.rule, str):
        return answer
    return replace(answer, rule=f"{name}.{answer.rule}" if answer.rule else name)


def _paths(rule: Rule, setting: str, where: str) -> tuple[Path, ...]:
    """Return the files and folders that a setting names: one path, several, or none."""
    named = _names(getattr(rule, setting))
    for name in named:
        if not Path(name).exists():
            raise ParamsError(
                "a file that a filter needs is not there",
                where=f"{where}.{setting}",
                expected="a path relative to the workspace",
                found=name,
                fix="correct the path in params.yaml, or put the file there",
            )
    return tuple(Path(name) for name in named)


def _names(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _check_language(rule: Rule, where: str) -> None:
    language = getattr(rule, "language", None)
    if not isinstance(language, str):
        return
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    from tasks.filter.word_splitting import datatrove_language

    try:
        load_word_tokenizer(datatrove_language(language))  # which does not load spaCy yet
    except (ValueError, ImportError) as error:
        raise ParamsError(
            f"texts in {language!r} cannot be split into words",
            where=f"{where}.language",
            expected='a language that datatrove knows, such as "eng" or "en", and the package that splits it',
            found=str(error).splitlines()[0],
        ) from error


def _rule(entry: Mapping[str, JsonValue], where: str) -> tuple[str, Rule]:
    if len(entry) != 1:
        raise ParamsError(
            "an entry of the list names one filter",
            where=where,
            expected="NAME: {settings}, or use: package.module:Class with with: {arguments}",
            found=", ".join(entry) or "nothing",
        )
    ((name, settings),) = entry.items()
    kind = rule_class(name, where)
    if not isinstance(settings, dict | None):
        raise ParamsError(
            f"the settings of {name} are no mapping", where=f"{where}.{name}", expected="{}", found=repr(settings)
        )
    try:
        return name, kind(**(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        raise ParamsError(
            f"{name} has no setting {key!r}" if unknown else f"{name}.{key} cannot be {first['input']!r}",
            where=f"{where}.{name}.{key}",
            expected=_nearest(key, tuple(kind.model_fields)) if unknown else first["msg"],
            found=repr(first["input"]),
            fix="correct it in params.yaml; `headwater filters show` lists a filter's settings",
        ) from error


def _split_use(entry: Mapping[str, JsonValue], where: str) -> tuple[str, str, dict[str, Any]]:
    unknown = set(entry) - {"use", "with"}
    module, _, name = str(entry["use"]).partition(":")
    arguments = entry.get("with") or {}
    if unknown or not module or not name or not isinstance(arguments, dict):
        raise ParamsError(
            "a filter of another package is not named as it must be",
            where=where,
            expected="use: package.module:Class, and with: {arguments}",
            found=str(dict(entry)),
        )
    return module, name, arguments


def _load_use(entry: Mapping[str, JsonValue], where: str) -> LoadedFilter:
    module_name, name, arguments = _split_use(entry, where)
    problem = f"the filter {entry['use']} cannot be made"
    module = imported(module_name, problem, where, "install its package, or take it off the list")
    source = getattr(module, "__file__", None)
    try:
        built = getattr(module, name)(**arguments)
    except Failure as error:
        raise ParamsError(
            problem,
            where=where,
            expected="an installed package, a class in it, and arguments it takes",
            found=said_of(error, source),
            fix=None if hasattr(module, name) else did_you_mean(name, vars(module)),
        ) from error
    from tasks.filter.datatrove_blocks import is_block, judge

    def call(document: Document) -> Drop | Edit | None:
        answer: Drop | Edit | None = judge(name, built, document) if is_block(built) else built(document)
        return answer

    if not is_block(built) and not _can_be_called(type(built)):
        raise ParamsError(
            f"{entry['use']} is no filter",
            where=where,
            expected="a datatrove filter, or a class with __call__(self, document)",
            found=repr(type(built)),
        )
    return LoadedFilter(
        name=name,
        own_call=None if is_block(built) else built.__call__,
        settings={"use": str(entry["use"]), "with": arguments},
        call=call,
        files={"source": (Path(source),)} if source else {},
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    near = did_you_mean(name, names)
    return f"{near} (all: {', '.join(names)})" if near else f"one of {', '.join(names)}"
