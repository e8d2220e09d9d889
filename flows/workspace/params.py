"""params.yaml: read, check, change with its comments kept, and lay a profile over it."""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.workspace.adaptation import ADAPTATION, OWN_SECTIONS
from flows.workspace.assignments import split_assignment
from flows.workspace.graph import Stage
from flows.workspace.params_text import with_changes
from tasks.contracts.base import StageParams, secrets_in_settings
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.errors import HeadwaterError, ParamsError, did_you_mean, together
from tasks.engine.session import RayParams
from training.release.signing import SigningKey, configured_key

PARAMS_FILE = Path("params.yaml")
PROFILES = Path("infra/profiles")
RAY_SECTION = "ray"
Model = TypeVar("Model", bound=BaseModel)
Check = Callable[[Mapping[str, Any]], object]
"""Raises where settings cannot be used."""


def _nothing(_settings: Mapping[str, Any]) -> None:
    """Ask nothing of the settings."""


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read the settings file as it stands, unchecked.

    Raises:
        ParamsError: it is missing, not YAML (to DVC either), or not a mapping of sections.
    """
    return _parsed(_text_of(path), path)


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise ParamsError("there is no params.yaml here", where=str(path.resolve())) from error
    except OSError as error:
        raise ParamsError(
            "params.yaml cannot be read", where=str(path), expected="a file that you may read", found=str(error)
        ) from error
    except UnicodeDecodeError as error:
        raise ParamsError("params.yaml is not valid YAML", where=str(path), found=str(error)) from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    return copy.deepcopy(_parsed_once(text, path))


@functools.lru_cache(maxsize=8)
def _parsed_once(text: str, path: Path) -> dict[str, Any]:
    """Parse a text, which takes a tenth of a second and which one command asks for several times; not to be changed."""
    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError("params.yaml is not valid YAML", where=str(path), found=str(error)) from error
    except RecursionError as error:
        raise ParamsError("params.yaml is nested too deep", where=str(path)) from error
    if not isinstance(loaded, dict):
        raise ParamsError("params.yaml must be a mapping of sections", where=str(path), found=type(loaded).__name__)
    if odd := _odd(loaded):
        raise ParamsError("params.yaml holds what is no setting", where=str(path), expected="NAME: VALUE", found=odd)
    try:
        other = None if _same(YAML(typ="safe").load(text), loaded) else "it takes a value for another one"
    except YAMLError as error:
        other = str(error)
    if other:
        raise ParamsError(
            "DVC, whose reader of YAML is stricter, cannot read params.yaml",
            where=str(path),
            found=other,
            fix="put texts with : # * & or other signs of YAML in quotes, as `headwater run --set` does",
        )
    return loaded


def _odd(value: Any, above: tuple[Any, ...] = ()) -> str | None:
    """Return what YAML allows and no setting has: a name that is no text, a value that holds itself by an alias."""
    if not isinstance(value, (dict, list)):
        return None
    if any(value is one for one in above):
        return "a value that holds itself (an alias, *, inside its own anchor, &)"
    for name in value if isinstance(value, dict) else ():
        if not isinstance(name, str):
            return f"the name {name!r}, which YAML takes for another kind than text: put it in quotes"
    inside = value.values() if isinstance(value, dict) else value
    return next((odd for one in inside if (odd := _odd(one, (*above, value)))), None)


def _same(one: Any, other: Any) -> bool:
    """Return whether values of YAML are the same, also in kind: 1 is neither 1.0 nor true, and NaN is NaN."""
    return repr(one) == repr(other)


def check_params(settings: Mapping[str, Any], graph: Mapping[str, Stage]) -> dict[str, StageParams]:
    """Check every section against its stage's model; return section → model.

    Raises:
        ParamsError: naming each wrong section and key, what was found and what is allowed.
    """
    stages = {**graph, **{name: ADAPTATION[name] for name in OWN_SECTIONS}}
    unknown = sorted(set(settings) - set(stages) - {RAY_SECTION})
    if unknown:
        raise ParamsError(
            f"params.yaml has a section that no stage reads: {', '.join(unknown)}",
            where=str(PARAMS_FILE),
            expected=", ".join([RAY_SECTION, *stages]),
            fix=did_you_mean(unknown[0], [RAY_SECTION, *stages]),
        )
    checked: dict[str, StageParams] = {}
    wrong: list[HeadwaterError] = []
    for name in [RAY_SECTION, *stages]:
        try:
            checked[name] = ray_params(settings) if name == RAY_SECTION else stage_params(settings, stages[name])
        except ParamsError as error:
            wrong.append(error)
    if wrong:
        raise together(wrong, "sections of params.yaml cannot be used")
    return checked


def stage_params(settings: Mapping[str, Any], stage: Stage) -> StageParams:
    """Check one stage's section, with the fields that it borrows from other sections filled in."""
    model = stage.params_class
    section = dict(_section(settings, stage.name))
    for field, source in model.borrowed().items():
        if field in section:
            raise ParamsError(
                f"{stage.name}.{field} is set in the wrong place", where=str(PARAMS_FILE), fix=f"set {source} instead"
            )
        value: Any = settings
        for key in source.split("."):
            value = (value or {}).get(key)
        if value is not None:
            section[field] = value
    return _validate(model, section, stage.name)


def ray_params(settings: Mapping[str, Any]) -> RayParams:
    """Check the `ray` section."""
    return _validate(RayParams, _section(settings, RAY_SECTION), RAY_SECTION)


def signing_key(settings: Mapping[str, Any]) -> SigningKey | None:
    """Return the key that releases are signed with, opened so that a wrong one shows before hours of work.

    Raises:
        ParamsError: one is configured that cannot be used.
    """
    section = settings.get("release")
    return configured_key(section.get("signing_key") if isinstance(section, Mapping) else None)


def set_values(assignments: Iterable[str], path: Path = PARAMS_FILE, check: Check = _nothing) -> str:
    """Write `SECTION.KEY=VALUE` assignments into params.yaml; return the change as a unified diff.

    Raises:
        ParamsError: an assignment is malformed, or as `merge_values`.
    """
    return merge_values(assigned(assignments, _names(read_params(path))), path, check)


def apply_profile(name: str, path: Path = PARAMS_FILE, check: Check = _nothing) -> str:
    """Lay `infra/profiles/NAME.yaml` over params.yaml; return the change as a unified diff.

    Raises:
        ParamsError: there is no such profile, or as `merge_values`.
    """
    return merge_values(profile_values(name), path, check)


def change_values(
    profiles: Iterable[str], assignments: Iterable[str], path: Path = PARAMS_FILE, check: Check = _nothing
) -> str:
    """Lay profiles over params.yaml, assignments over those, as one change; return it as a unified diff.

    Raises:
        ParamsError: as `apply_profile` and `set_values`.
    """
    return merge_values(wanted_changes(profiles, assignments, path), path, check)


def wanted_changes(profiles: Iterable[str], assignments: Iterable[str], path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Return what profiles, and assignments over them, are to change in params.yaml, as nested values.

    Raises:
        ParamsError: there is no such profile, or an assignment is malformed.
    """
    changes: dict[str, Any] = {}
    for name in profiles:
        changes = merged(changes, profile_values(name))
    return merged(changes, assigned(assignments, _names(read_params(path))))


def _names(settings: Mapping[str, Any]) -> list[str]:
    """Return SECTION.KEY of all settings."""
    sections = ((name, section) for name, section in settings.items() if isinstance(section, Mapping))
    return [f"{name}.{key}" for name, section in sections for key in section]


def assigned(assignments: Iterable[str], known: Iterable[str] = ()) -> dict[str, Any]:
    """Return `SECTION.KEY=VALUE` assignments as nested values; of two for one key the later one counts.

    Args:
        known: settings that there are, for the question whether one of them was meant.

    Raises:
        ParamsError: one is malformed.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, value = split_assignment(assignment, "SECTION.KEY=VALUE")
        keys = name.split(".")
        if len(keys) < 2 or not all(keys):
            hint = did_you_mean(name, known)
            raise ParamsError("a setting cannot be read", expected="SECTION.KEY=VALUE", found=assignment, fix=hint)
        place = changes
        for key in keys[:-1]:
            if not isinstance(place.setdefault(key, {}), dict):
                raise ParamsError("a setting is given twice, as a value and with keys of its own", found=assignment)
            place = place[key]
        place[keys[-1]] = value
    return changes


def profile_values(name: str) -> dict[str, Any]:
    """Return the nested values of `infra/profiles/NAME.yaml`.

    Raises:
        ParamsError: there is no such profile.
    """
    profile = PROFILES / f"{name}.yaml"
    if not profile.is_file():
        known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        hint = did_you_mean(name, known)
        raise ParamsError("there is no such profile", expected=", ".join(known), found=name, fix=hint)
    return read_params(profile)


def merge_values(changes: Mapping[str, Any], path: Path = PARAMS_FILE, check: Check = _nothing) -> str:
    """Merge nested values into params.yaml and leave all else in it as it is; return the change as a unified diff.

    The file is replaced in one step, after everything has been checked: whatever ends this process, what stands on
    the disk is what stood there before, or all of the change.

    Args:
        check: asked about the settings as they will be, before anything is written.

    Raises:
        ParamsError: a secret would stand in it then, or a value stands in a form that cannot be replaced, or from
            `check`. Nothing is written.
    """
    before = _text_of(path)
    settings = _parsed(before, path)
    wanted = merged(settings, changes)
    refuse_secrets(wanted, path)
    after = with_changes(before, changes)
    if not _same(_parsed(after, path), wanted):
        raise ParamsError(
            "a setting stands in a form in which it cannot be replaced, such as an alias",
            where=str(path),
            found=diff_text(before, after),
            fix="change it by hand",
        )
    check(wanted)
    if after != before:
        write_bytes(path, after.encode())
    return diff_text(before, after)


def merged(settings: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with others laid over them; neither is changed.

    Raises:
        ParamsError: keys would be laid over a name that stands for all of them, and drop what it stands for.
    """
    laid = dict(settings) if isinstance(settings, Mapping) else {}
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(name := laid.get(key), str):
            raise ParamsError(
                f"{key} stands for all its keys by a name, so a key of its own cannot be laid over it",
                where=str(PARAMS_FILE),
                expected=f"another name for {key}",
                found=f"{key}: {name!r}, and for it {dict(value)!r}",
                fix=f"write {key} by hand as you want it",
            )
        laid[key] = merged(laid.get(key), value) if isinstance(value, Mapping) else value
    return laid


def refuse_secrets(settings: Mapping[str, Any], path: Path = PARAMS_FILE) -> None:
    """Raise ParamsError where a setting holds a secret, before it is written anywhere; the secret is not shown."""
    found = [f"{'.'.join(map(str, place))}: {said}" for place, said in secrets_in_settings(settings)]
    if found:
        raise ParamsError(
            "a setting holds a secret, which would be written into dvc.lock, manifests and MLflow",
            where=str(path),
            found="\n    ".join(["", *found]),
            fix="docs/provenance.md, Passwords and tokens, shows both ways; change a secret that was written already",
        )


def diff_text(before: str, after: str) -> str:
    """Return a unified diff of two versions of params.yaml."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml", "params.yaml", lineterm="", n=0
    )
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ParamsError(f"section {name} of params.yaml must hold keys", where=str(PARAMS_FILE), found=repr(section))
    return section


def _validate(model: type[Model], section: Mapping[str, Any], name: str) -> Model:
    try:
        return model.model_validate(section)
    except ValidationError as error:
        lines = [_explain(model, name, dict(problem)) for problem in error.errors()]
        raise ParamsError(
            f"params.yaml: {len(lines)} setting{'s' if len(lines) > 1 else ''} of section {name} cannot be used",
            where=str(PARAMS_FILE),
            found="\n    ".join(["", *lines]),
            fix=f"`headwater params show {name}` lists the section's settings with their meaning",
        ) from error


def _explain(model: type[Any], section: str, problem: Mapping[str, Any]) -> str:
    keys = [str(part) for part in problem["loc"]]
    where = ".".join([section, *keys])
    if problem["type"] == "extra_forbidden":
        allowed = _keys_at(model, keys[:-1])
        hint = did_you_mean(keys[-1], allowed)
        return (
            f"{where}: unknown key"
            + (f"; {hint}" if hint else "")
            + (f" (allowed: {', '.join(allowed)})" if allowed else "")
        )
    field = model.model_fields.get(keys[0]) if keys else None
    meaning = f" — {field.description}" if field is not None and field.description else ""
    hint = None
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        hint = did_you_mean(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return f"{where} = {problem['input']!r}: {problem['msg']}{f'; {hint}' if hint else ''}{meaning}"


def _keys_at(kind: Any, keys: Sequence[str]) -> list[str]:
    """Return the keys of a model, or of the one that is somewhere inside it; none where there are several."""
    models = list(_models_in(kind))
    if len(models) != 1:
        return []
    (model,) = models
    if not keys:
        return list(model.model_fields)
    field = model.model_fields.get(keys[0])
    # What follows a list's name is a place in it.
    return _keys_at(field.annotation, [key for key in keys[1:] if not key.isdigit()]) if field else []


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation speaks of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models_in(part)
