"""What differs in the settings of two releases: each setting by its dotted name, and the list of filters by itself.

A filter's place in the list matters: it decides which one drops a document, and so which reason the ledger names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from tasks.contracts.durable_files import canonical_json
from tasks.contracts.manifest import Manifest, chain_order
from tasks.contracts.stages import params_of

FILTER, RULES = "filter", "rules"
POLICY_HASH = "train.policy_sha256"
CONTENT = " (content)"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """One setting; where one release has no such setting, `only_in` says which one has it and the other's is None."""

    name: str
    a: JsonValue
    b: JsonValue
    only_in: Literal["a", "b"] | None = None

    @property
    def same(self) -> bool:
        """Whether both releases have it, with one value."""
        return self.only_in is None and _equal(self.a, self.b)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """One filter of the list.

    Attributes:
        a, b: its place in each list, from 1; None where it is not in it.
        moved: among the filters that both have, it stands at another place.
        settings: those of its settings that differ; none for one that was added or removed.
    """

    rule: str
    a: int | None
    b: int | None
    moved: bool
    settings: tuple[SettingChange, ...]

    @property
    def same(self) -> bool:
        """Whether it is in both lists, in the same order with the others, with the same settings."""
        return None not in (self.a, self.b) and not self.moved and all(setting.same for setting in self.settings)


def compare_settings(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> tuple[SettingChange, ...]:
    """Return every setting of the stages that both releases have, but the list of filters, stage by stage."""
    changes = {
        change.name: change
        for stage in in_pipeline(a, b)
        if stage in a and stage in b
        for change in _compare(_settings(stage, a[stage]), _settings(stage, b[stage]))
    }
    return tuple(change for change in changes.values() if not _repeats(change, changes))


def compare_rules(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> tuple[RuleChange, ...]:
    """Return every filter of either list, by its name; one that is there twice is numbered."""
    if FILTER not in a or FILTER not in b:
        return ()
    first, second = _filters(a[FILTER]), _filters(b[FILTER])
    places = [{name: place for place, name in enumerate(rules, start=1)} for rules in (first, second)]
    stay = in_order([name for name in first if name in second], [name for name in second if name in first])
    return tuple(
        RuleChange(
            rule=name,
            a=places[0].get(name),
            b=places[1].get(name),
            moved=name in first and name in second and name not in stay,
            settings=_compare(_flat(first[name]), _flat(second[name])) if name in first and name in second else (),
        )
        for name in sorted({*first, *second})
    )


def in_pipeline(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> list[str]:
    """Return the stages of two releases, each after those that it was made from in either."""
    return chain_order(
        {stage: {name for side in (a, b) if stage in side for name in side[stage].inputs} for stage in {*a, *b}}
    )


def in_order(first: Sequence[str], second: Sequence[str]) -> frozenset[str]:
    """Return the most names that stand in one order in both lists, which have the same names.

    Of several such sets it is the one that comes first, whichever list is named first.

    >>> sorted(in_order(["a", "b", "c", "d"], ["b", "c", "d", "a"]))
    ['b', 'c', 'd']
    """
    place = {name: number for number, name in enumerate(second)}
    best: dict[str, frozenset[str]] = {}
    for name in first:
        before = [best[other] for other in best if place[other] < place[name]]
        best[name] = _larger(before) | {name}
    return _larger(list(best.values()))


def _larger(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    return min(sets, key=lambda names: (-len(names), sorted(names)), default=frozenset())


def _settings(stage: str, manifest: Manifest) -> dict[str, JsonValue]:
    return _flat({stage: {key: value for key, value in manifest.params.items() if (stage, key) != (FILTER, RULES)}})


def _filters(manifest: Manifest) -> dict[str, Any]:
    """Return the filters in their order: name → settings."""
    listed: Any = manifest.params.get(RULES) or []
    found: dict[str, Any] = {}
    for entry in listed:
        for rule, settings in entry.items():
            number = sum(name.partition("#")[0] == rule for name in found) + 1
            found[rule if number == 1 else f"{rule}#{number}"] = settings or {}
    return found


def _compare(a: Mapping[str, JsonValue], b: Mapping[str, JsonValue]) -> tuple[SettingChange, ...]:
    changes = []
    for name in sorted({*a, *b}):
        within = f"{name}."
        if {} in (a.get(name), b.get(name)) and any(other.startswith(within) for other in (*a, *b)):
            continue  # nothing is set here in one of them: the settings below say it
        only: Literal["a", "b"] | None = None if name in a and name in b else "a" if name in a else "b"
        if only is not None and name.endswith(CONTENT):
            continue  # the list of files says it
        changes.append(SettingChange(name=name, a=a.get(name), b=b.get(name), only_in=only))
    return tuple(changes)


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, JsonValue]:
    """Return dotted name → value. Of a list of things with names, each has its settings, and the list its order."""
    found: dict[str, JsonValue] = {}
    for key, one in value.items():
        name = f"{before}{key}"
        if _is_files(one):
            # What was set are the files; what they resolved to is said where a file of one name has another content.
            found[name] = sorted(one)
            found |= {f"{name}.{file}{CONTENT}": digest for file, digest in one.items()}
        elif isinstance(one, dict) and one:
            found |= _flat(one, f"{name}.")
        elif names := _names(one):
            found[name] = list(names)
            for thing in one:
                found |= _flat(
                    {key: value for key, value in thing.items() if key != "name"}, f"{name}.{thing['name']}."
                )
        else:
            found[name] = one
    return found


def _is_files(value: Any) -> bool:
    """Whether a setting names files: a manifest holds them as name → SHA-256."""
    return isinstance(value, dict) and bool(value) and all(_SHA256.fullmatch(str(one)) for one in value.values())


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) and "name" in one for one in value):
        return ()
    names = tuple(str(one["name"]) for one in value)
    return names if len(set(names)) == len(names) else ()


def _repeats(change: SettingChange, changes: Mapping[str, SettingChange]) -> bool:
    """Whether it only repeats a change of the section where the setting stands in params.yaml."""
    if change.name == POLICY_HASH:
        gate = any(name.startswith("gate.") and not one.same for name, one in changes.items())
        return gate or ("evaluate.tasks" in changes and not changes["evaluate.tasks"].same)
    stage = change.name.partition(".")[0]
    model = params_of(stage)
    for name, source in (model.borrowed() if model else {}).items():
        copy = f"{stage}.{name}"
        if change.name == copy or change.name.startswith(f"{copy}."):
            stands = changes.get(source + change.name.removeprefix(copy))
            return stands is not None and _equal(stands.a, change.a) and _equal(stands.b, change.b)
    return False


def _equal(a: JsonValue, b: JsonValue) -> bool:
    """Whether two settings are one, as a manifest's hash sees it: 1 and 1.0 are two."""
    return canonical_json(a) == canonical_json(b)
