"""What every stage and every filter has in common: frozen settings, a `run` function, drop reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tasks.contracts.document import Document
from tasks.contracts.errors import HeadwaterError, InputError
from tasks.contracts.manifest import Manifest
from tasks.contracts.redaction import HIDDEN, literal_secrets

Value = TypeVar("Value")


SECRET_ADVICE = (
    "give a user and password by a netrc file, any other secret by ${NAME}, which is filled in from the environment"
)


class FrozenModel(BaseModel):
    """Settings or a file's content: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class StageParams(FrozenModel):
    """One stage's section of params.yaml; each field's docstring is what Prefect's form and `--help` show.

    No setting may hold a secret in a URL: settings are written into dvc.lock, manifests, papers and MLflow.
    """

    model_config = ConfigDict(hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, section: Any) -> Any:
        wrong = [
            InitErrorDetails(type=PydanticCustomError("secret", "{said}", {"said": said}), loc=place, input=HIDDEN)
            for place, said in secrets_in_settings(section)
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong, hide_input=True)
        return section

    def identity(self) -> dict[str, JsonValue]:
        """Return the settings that decide the output's bytes (not paths, worker counts or time-outs)."""
        left_out = {name for name, field in type(self).model_fields.items() if _mark(field, "identity") is False}
        return self.model_dump(mode="json", exclude=left_out)

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return those of the settings that the stage's manifest holds as they are set, or as they follow from that."""
        return self.identity()

    def named_files(self) -> tuple[str, ...]:
        """Return the local files and folders that settings name and whose content decides the output's bytes."""
        return ()

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield what this machine lacks for these settings, as far as it can be told before any stage runs, quickly."""
        for name in self.named_files():
            if not Path(name).exists():
                yield InputError(
                    "a file that a setting names is not there",
                    expected="a path that starts at the workspace, or a whole one",
                    found=name,
                    fix="correct the path, or put the file there",
                )

    @classmethod
    def derived(cls) -> tuple[str, ...]:
        """Return the names in the manifest's params that hold hashes of what the stage made from its inputs."""
        return ()

    @classmethod
    def borrowed(cls) -> dict[str, str]:
        """Return the fields that are read from another section: field name → "section.key" (or "section")."""
        marks = {name: _mark(field, "borrowed_from") for name, field in cls.model_fields.items()}
        return {name: str(source) for name, source in marks.items() if source is not None}


def secrets_in_settings(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield, for each text in nested settings that holds a secret, where it stands and what is wrong with it."""
    if isinstance(value, str):
        if found := literal_secrets(value):
            yield place, f"a secret stands in it, {', '.join(found)}: {SECRET_ADVICE}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in_settings(str(key), (*place, "a key"))
            yield from secrets_in_settings(item, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from secrets_in_settings(item, (*place, index))


def _mark(field: Any, name: str) -> object:
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def not_identity(default: Value, **constraints: Any) -> Value:
    """Declare a field that never changes the output's bytes, such as a path or a number of workers."""
    field: Value = Field(default, json_schema_extra={"identity": False}, **constraints)
    return field


def threshold(default: Value, **constraints: Any) -> Value:
    """Declare a bound of a filter: its `decide` compares with it, and its `measure` gives the same whatever it is."""
    field: Value = Field(default, json_schema_extra={"threshold": True}, **constraints)
    return field


def borrowed_from(source: str, default: Value, *, identity: bool = True) -> Value:
    """Declare a field whose value stands in another section of params.yaml (one setting, one place).

    Args:
        identity: whether it decides the output's bytes.
    """
    field: Value = Field(default, json_schema_extra={"borrowed_from": source, "identity": identity})
    return field


class StageFunction(Protocol):
    """One stage: reads the folders in `inputs`, writes `output`, commits its manifest last and returns it."""

    def __call__(self, *, params: Any, inputs: Mapping[str, Path], output: Path) -> Manifest: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Why a document is dropped: what of the rule decided it, and the score that crossed the threshold.

    Attributes:
        rule: of a filter's answer the part after the filter's own name, which stands before it in the ledger; empty
            where there is one reason only.
    """

    rule: str = ""
    score: float | None = None
    threshold: float | None = None
    survivor_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A document that stays with another text: the new text, and what was changed; `rule` as in Drop."""

    text: str
    rule: str = ""
    score: float | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a rule finds in a document, whatever its thresholds are.

    Attributes:
        values: what is compared with thresholds, by name; what a document has no value of is left out.
        detail: what the ledger says of a drop by a threshold.
        otherwise: the answer where no threshold is crossed.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    detail: str | None = None
    otherwise: Drop | Edit | None = None


class Rule(FrozenModel):
    """A filter in `tasks/filter/rules/`: its settings as fields, each with a docstring, and what it does when called.

    A rule with thresholds declares them by `threshold`, measures in `measure` and decides in `decide` from that alone:
    what was measured is kept, so that another threshold measures nothing again. A rule without may define `__call__`
    instead. A rule that measures with a model does so in `scores`, which stay on the document.
    """

    paths: ClassVar[tuple[str, ...]] = ()
    """The settings that name files or folders, whose content decides the answers."""
    score_settings: ClassVar[tuple[str, ...]] = ()
    """The settings that decide what `scores` gives; a rule that names none has no scores."""

    @classmethod
    def thresholds(cls) -> tuple[str, ...]:
        """Return the settings that are declared as thresholds."""
        return tuple(name for name, field in cls.model_fields.items() if _mark(field, "threshold") is True)

    def measured_by(self) -> dict[str, JsonValue]:
        """Return what decides the measurements: the settings that are no thresholds."""
        return self.model_dump(mode="json", exclude=set(self.thresholds()))

    def scores(self, document: Document) -> Mapping[str, float]:
        """Return what the rule measures of a document, by names that begin with "filter."."""
        raise NotImplementedError

    def measure(self, document: Document) -> Measured:
        """Return what `decide` needs of a document; no threshold is looked at."""
        raise NotImplementedError

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return None to keep the document, a Drop to drop it, an Edit to change its text."""
        raise NotImplementedError

    def __call__(self, document: Document) -> Drop | Edit | None:
        """Return the answer about one document: it is measured, then decided."""
        return self.decide(self.measure(document))
