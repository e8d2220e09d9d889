"""params.yaml: read, check, change with its comments kept, and lay a profile over it."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.graph import Stage
from tasks.contracts.base import StageParams, secrets_in_settings
from tasks.contracts.errors import ParamsError
from tasks.contracts.files import write_bytes
from tasks.engine.session import RayParams
from training.signing import SigningKey, configured_key

PARAMS_FILE = Path("params.yaml")
PROFILES = Path("infra/profiles")
RAY_SECTION = "ray"


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), _as_null)
    return yaml


def _as_null(representer: Any, _: None) -> Any:
    """Write null, not nothing: what a change does not touch stays as it was written."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read the settings file as it stands, unchecked, with its comments.

    Raises:
        ParamsError: it is missing, not YAML, or not a mapping of sections.
    """
    try:
        loaded = _yaml().load(path)
    except FileNotFoundError as error:
        raise ParamsError("there is no params.yaml here", where=str(path.resolve())) from error
    except YAMLError as error:
        raise ParamsError("params.yaml is not valid YAML", where=str(path), found=str(error)) from error
    if not isinstance(loaded, dict):
        raise ParamsError("params.yaml must be a mapping of sections", where=str(path), found=type(loaded).__name__)
    return loaded


def check_params(settings: Mapping[str, Any], graph: Mapping[str, Stage]) -> dict[str, StageParams]:
    """Check every section against its stage's model; return section → model.

    Raises:
        ParamsError: naming each wrong section and key, what was found and what is allowed.
    """
    unknown = sorted(set(settings) - set(graph) - {RAY_SECTION})
    if unknown:
        raise ParamsError(
            f"params.yaml has a section that no stage reads: {', '.join(unknown)}",
            where=str(PARAMS_FILE),
            expected=", ".join([RAY_SECTION, *graph]),
            fix=_nearest(unknown[0], [RAY_SECTION, *graph]),
        )
    checked: dict[str, StageParams] = {RAY_SECTION: ray_params(settings)}
    checked |= {name: stage_params(settings, stage) for name, stage in graph.items()}
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


def set_values(assignments: Iterable[str], path: Path = PARAMS_FILE) -> str:
    """Write `SECTION.KEY=VALUE` assignments into params.yaml; return the change as a unified diff.

    The values are YAML, so `crawl.paths=[a.warc.gz, b.warc.gz]` is a list and `train.steps=null` is none.

    Raises:
        ParamsError: an assignment is malformed.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        keys = name.strip().split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise ParamsError("a setting cannot be read", expected="SECTION.KEY=VALUE", found=assignment)
        try:
            value = YAML(typ="safe").load(text) if text.strip() else None
        except YAMLError as error:
            raise ParamsError(
                "a setting's value is not YAML", found=assignment, expected="SECTION.KEY=VALUE"
            ) from error
        place = changes
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    return merge_values(changes, path)


def apply_profile(name: str, path: Path = PARAMS_FILE) -> str:
    """Lay `infra/profiles/NAME.yaml` over params.yaml; return the change as a unified diff.

    Raises:
        ParamsError: there is no such profile.
    """
    profile = PROFILES / f"{name}.yaml"
    if not profile.is_file():
        known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        raise ParamsError("there is no such profile", expected=", ".join(known), found=name, fix=_nearest(name, known))
    return merge_values(read_params(profile), path)


def merge_values(changes: Mapping[str, Any], path: Path = PARAMS_FILE) -> str:
    """Merge nested values into params.yaml, keeping its comments; return the change as a unified diff.

    Raises:
        ParamsError: a secret would stand in it then; nothing is written.
    """
    settings = read_params(path)
    _merge(settings, changes)
    refuse_secrets(settings, path)
    buffer = io.StringIO()
    _yaml().dump(settings, buffer)
    before, after = path.read_text(encoding="utf-8"), buffer.getvalue()
    if settings == read_params(path):
        return ""
    write_bytes(path, after.encode())
    return diff_text(before, after)


def refuse_secrets(settings: Mapping[str, Any], path: Path = PARAMS_FILE) -> None:
    """Raise ParamsError where a setting holds a secret, before it is written anywhere; the secret is not shown."""
    found = [f"{'.'.join(map(str, place))}: {said}" for place, said in secrets_in_settings(_plain(settings))]
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


def _merge(settings: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = value


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ParamsError(f"section {name} of params.yaml must hold keys", where=str(PARAMS_FILE), found=repr(section))
    return section


def _validate(model: type[Any], section: Mapping[str, Any], name: str) -> Any:
    try:
        return model.model_validate(_plain(section))
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
        allowed = list(model.model_fields)
        hint = _nearest(keys[-1], allowed) if len(keys) == 1 else None
        return (
            f"{where}: unknown key"
            + (f"; {hint}" if hint else "")
            + (f" (allowed: {', '.join(allowed)})" if len(keys) == 1 else "")
        )
    field = model.model_fields.get(keys[0]) if keys else None
    meaning = f" — {field.description}" if field is not None and field.description else ""
    return f"{where} = {problem['input']!r}: {problem['msg']}{meaning}"


def _nearest(word: str, allowed: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f"did you mean {close[0]}?" if close else None


def _plain(value: Any) -> Any:
    """Turn ruamel's commented containers and numbers into plain Python ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
