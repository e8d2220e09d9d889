"""Which stages a run would bring up to date, and why: asked before a run begins, and shown by `headwater run --plan`.

DVC says what is stale. What it compares params.yaml with is dvc.lock; here the settings may be others than stand on the
disk, so they are compared with dvc.lock again. Nothing is started or written.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.pipeline.snapshot import is_whole
from flows.workspace.dvc import LOCK_FILE, NOT_IN_CACHE, dvc_status
from flows.workspace.graph import Stage
from flows.workspace.named_files import changed
from flows.workspace.params import PARAMS_FILE
from tasks.contracts.base import StageParams
from tasks.contracts.errors import HeadwaterError

Kind = Literal["runs", "may run", "put back", "up to date"]
_LONGEST = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a run would do with one stage.

    Attributes:
        kind: "may run": only if a stage before it gives another output; "put back": a snapshot of these settings is on
            this disk, and nothing is fetched.
        why: a reason each.
    """

    stage: str
    kind: Kind
    why: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """Whether the stage's own work may be done."""
        return self.kind in ("runs", "may run")


def due(
    stages: Sequence[Stage], settings: Mapping[str, Any], checked: Mapping[str, StageParams], force: Collection[str]
) -> list[Due]:
    """Return what a run of these stages would do.

    Args:
        settings: params.yaml as it is to be.
        checked: every section of it as its model.
        force: stages that are to run again although nothing changed.
    """
    lock = _lock()
    status = dvc_status() if lock else {}
    listed: list[Due] = []
    another: set[str] = set()  # stages that may give another output; one that is only missing is put back as it was
    for stage in stages:
        changes = list(_changed_settings(stage, lock[stage.name], settings)) if stage.name in lock else []
        why = [*_reasons(stage, lock, status), *changes]
        why += [f"another content is in {', '.join(files)}"] if (files := changed(stage, checked[stage.name])) else []
        after = [name for name in stage.inputs if name in another]
        if stage.name in force:
            listed.append(Due(stage=stage.name, kind="runs", why=("--force", *why)))
        elif why and not stage.inputs and is_whole(stage, checked[stage.name]):
            listed.append(Due(stage=stage.name, kind="put back", why=tuple(why)))
        elif why:
            listed.append(Due(stage=stage.name, kind="runs", why=tuple(why)))
        elif after:
            why = [f"if {after[0] if len(after) == 1 else 'a stage before it'} gives another output"]
            listed.append(Due(stage=stage.name, kind="may run", why=tuple(why)))
        else:
            listed.append(Due(stage=stage.name, kind="up to date"))
        if listed[-1].works or changes:
            another.add(stage.name)
    return listed


def _lock() -> dict[str, Any]:
    """Return dvc.lock's stages, none where nothing has run yet."""
    if not LOCK_FILE.exists():
        return {}
    try:
        loaded, found = YAML(typ="safe").load(LOCK_FILE), "no stages"
    except YAMLError as error:
        loaded, found = None, " ".join(str(error).split())[:200]
    if not isinstance(loaded, dict):
        raise HeadwaterError(
            "dvc.lock cannot be read",
            where=str(LOCK_FILE),
            found=found,
            fix="`headwater run` puts back the copy that it kept of one that broke off; a merge's marks are yours",
        )
    return dict(loaded.get("stages") or {})


def _reasons(stage: Stage, lock: Mapping[str, Any], status: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what DVC says of a stage but for its settings."""
    if stage.name not in lock:
        yield "has not run here yet"
        return
    if status is None:
        yield "DVC cannot say whether it is up to date (`dvc status` says why)"
        return
    for change in status.get(stage.name, ()):
        if not isinstance(change, dict):
            yield str(change)
            continue
        for name, state in change.get("changed deps", {}).items():
            if name != str(PARAMS_FILE):
                yield f"{name} is {_SAID.get(state, state)}"
        for name, state in change.get("changed outs", {}).items():
            if state != NOT_IN_CACHE:  # whole, and put back into the cache first
                yield f"{name} is {_SAID.get(state, state)}"


_SAID = {"modified": "another one than before", "deleted": "missing", "new": "not there before"}


def _changed_settings(stage: Stage, locked: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting of a stage that has another value than in its last run, with both."""
    before = (locked.get("params") or {}).get(str(PARAMS_FILE)) or {}
    for name in stage.params:
        value: Any = settings
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        yield from _differences(name, before.get(name), value)


def _differences(name: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(f"{name}.{key}", before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{name}[{number}]", one, other)
    elif isinstance(before, list) and isinstance(after, list):
        gone, new = ([item for item in one if item not in other] for one, other in ((before, after), (after, before)))
        yield f"{name}: without {_shown(gone)}, with {_shown(new)}"
    elif before != after:
        yield f"{name}: {_shown(before)} → {_shown(after)}"


_ABSENT = object()


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "its default"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
