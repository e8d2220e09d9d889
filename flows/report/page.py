"""The report: one page, without outside resources, that shows what became of the raw pages and why.

Made from the manifests and the small result files beside them; a stage that has not run is shown as such.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq

from flows.report.charts import Funnel, LineChart, funnel, loss_chart
from flows.workspace.graph import GRAPH_FILE, load_graph
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.errors import InputError
from tasks.contracts.files import LOSS_NAME, METRICS_NAME, PROTECTED_NAME, REPORT_NAME, TOKENS_NAME
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, manifest_hash, read_manifest, text_shards
from tasks.contracts.workspace import state_folder
from training.gate.stage import rules_met

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_HOSTS_SHOWN = 14
_REASONS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One stage in the table that ends a run; the numbers are None for a stage that has not run."""

    stage: str
    unit: str | None = None
    in_: int | None = None
    kept: int | None = None
    dropped: int | None = None
    reasons: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage as the page shows it.

    Attributes:
        sha256: the manifest's hash, None when the stage has not run.
        reasons: (rule, number, share of what went in), the largest first.
    """

    name: str
    sha256: str | None = None
    unit: str = ""
    in_: int = 0
    out: int = 0
    reasons: Sequence[tuple[str, int, float]] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    holds_documents: bool = False

    @property
    def ran(self) -> bool:
        """Whether the stage's folder is complete."""
        return self.sha256 is not None

    @property
    def dropped(self) -> int:
        """How many were dropped, for all reasons."""
        return self.in_ - self.out

    @property
    def kept_share(self) -> float:
        """The share that was kept, 0 to 1."""
        return self.out / self.in_ if self.in_ else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleView:
    """One rule of the gate; `low` and `high` are the bounds of its confidence interval."""

    name: str
    passed: bool | None
    value: float | None
    threshold: float | None
    low: float | None
    high: float | None
    detail: str


def summary_rows(workspace: Path, stages: Sequence[str] | None = None) -> list[SummaryRow]:
    """Return what each of these stages (all, where none are named) took in, kept and dropped, in their order."""
    rows = []
    for view in _stages(workspace):
        if stages is not None and view.name not in stages:
            continue
        if not view.ran:
            rows.append(SummaryRow(stage=view.name))
            continue
        shown = [f"{rule} {number:,}" for rule, number, _ in view.reasons[:_REASONS_SHOWN]]
        more = len(view.reasons) - len(shown)
        reasons = ", ".join([*shown, *([f"{more} more"] if more > 0 else [])])
        row = SummaryRow(
            stage=view.name, unit=view.unit, in_=view.in_, kept=view.out, dropped=view.dropped, reasons=reasons
        )
        rows.append(row)
    return rows


def build_report(workspace: Path) -> Path:
    """Write the report of a workspace and return its path, `.headwater/report.html`.

    Raises:
        InputError: a file of a finished stage is missing or damaged.
    """
    path = state_folder() / "report.html"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": _number,
        "size": _size,
        "percent": _percent,
        "unit": _unit,
        "figure": _figure,
        "compact": _compact,
    }
    page = environment.get_template(_TEMPLATE.name).render(**_context(workspace))
    write_bytes(path, page.encode())
    return path


def _context(workspace: Path) -> dict[str, Any]:
    data = workspace / "data"
    stages = _stages(workspace)
    by_name = {stage.name: stage for stage in stages}
    text = [stage for stage in stages if stage.holds_documents]
    flow: Funnel | None = funnel([(s.name, s.in_, s.out) for s in text]) if text else None
    chart: LineChart | None = loss_chart(_loss_rows(_file(by_name["train"], data, LOSS_NAME)))
    gate = _json(_file(by_name["gate"], data, REPORT_NAME))
    hosts = _hosts(text, data)
    return {
        "stages": stages,
        "text": text,
        "funnel": flow,
        "tokens": _json(_file(by_name["tokenize"], data, TOKENS_NAME)),
        "tokenizer": _json(_file(by_name["tokenizer"], data, METRICS_NAME)),
        "training": _json(_file(by_name["train"], data, METRICS_NAME)),
        "scores": _scalars(_json(_file(by_name["evaluate"], data, METRICS_NAME))),
        "loss": chart,
        "verdict": _verdict(gate),
        "rules": list(_rules(gate)),
        "rules_met": rules_met([str(rule.get("verdict")) for rule in gate.get("rules", [])]).rstrip("."),
        "protection": _json(_file(by_name["decontaminate"], data, PROTECTED_NAME)).get("items", {}),
        "release": by_name["release"],
        "weights": _weights(data / "release") if by_name["release"].ran else [],
        "hosts": hosts.most_common(_HOSTS_SHOWN),
        "hosts_total": len(hosts),
        "hosts_rest": sum(hosts.values()) - sum(n for _, n in hosts.most_common(_HOSTS_SHOWN)),
        "hosts_documents": sum(hosts.values()),
        "done": sum(stage.ran for stage in stages),
    }


def _stages(workspace: Path) -> list[StageView]:
    """Return every stage; one that was made from another corpus than stands here counts as one that has not run."""
    views: dict[str, StageView] = {}
    for name in load_graph(workspace / GRAPH_FILE):
        view = _stage(name, workspace / "data" / name)
        current = all(views[one].sha256 == sha256 for one, sha256 in view.inputs.items() if one in views)
        views[name] = view if current else StageView(name=name)
    return list(views.values())


def _stage(name: str, folder: Path) -> StageView:
    if not (folder / MANIFEST_NAME).is_file():
        return StageView(name=name)
    manifest: Manifest = read_manifest(folder)
    counts = manifest.counts
    ordered = sorted(counts.dropped.items(), key=lambda item: (-item[1], item[0]))
    return StageView(
        name=name,
        sha256=manifest_hash(folder),
        unit=manifest.unit,
        in_=counts.in_,
        out=counts.out,
        reasons=[(rule, number, number / max(counts.in_, 1)) for rule, number in ordered if number],
        inputs=manifest.inputs,
        holds_documents=manifest.holds_documents,
        files=len(manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
    )


def _file(view: StageView, data: Path, name: str) -> Path | None:
    """Return a small result file of a stage, None where the stage has not run or makes none.

    Raises:
        InputError: the stage's manifest lists it and it is not there.
    """
    if not view.ran or name not in {shard.name for shard in read_manifest(data / view.name).shards}:
        return None
    path = data / view.name / name
    if not path.is_file():
        raise _missing(path, view.name)
    return path


def _missing(path: Path, stage: str) -> InputError:
    return InputError(
        "a file that a finished stage made is missing",
        where=str(path),
        fix=f"`dvc checkout` brings it back, or `headwater run --force {stage}` makes it again",
    )


def _json(path: Path | None) -> dict[str, Any]:
    """Return a JSON object that a stage wrote, empty when there is none yet.

    Raises:
        InputError: it cannot be read.
    """
    if path is None:
        return {}
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise InputError(
            "a file that a finished stage made cannot be read",
            where=str(path),
            found=str(error).splitlines()[0],
            fix="`dvc checkout --force` brings it back, or run the stage again",
        ) from error
    return content


def _scalars(content: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def _loss_rows(path: Path | None) -> list[dict[str, float]]:
    """Return the measured cells of loss.csv, row by row."""
    if path is None:
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: float(cell) for name, cell in row.items() if name and cell} for row in rows]


def _hosts(text: Sequence[StageView], data: Path) -> Counter[str]:
    """Count the documents by host in the last text stage that has run."""
    counter: Counter[str] = Counter()
    for view in [view for view in text if view.name != "crawl"][-1:]:
        for shard in text_shards(data / view.name):
            path = data / view.name / shard.name
            if not path.is_file():
                raise _missing(path, view.name)
            for entry in pq.read_table(path, columns=["host"])["host"].value_counts().to_pylist():
                counter[str(entry["values"])] += int(entry["counts"])
    return counter


def _verdict(gate: Mapping[str, Any]) -> bool | None:
    return {"pass": True, "fail": False}.get(str(gate.get("verdict")))


def _rules(gate: Mapping[str, Any]) -> Iterator[RuleView]:
    for rule in gate.get("rules", []):
        yield RuleView(
            name=str(rule.get("rule", "?")),
            passed=_verdict(rule),
            value=_float(rule.get("value")),
            threshold=_float(rule.get("threshold")),
            low=_float(rule.get("low")),
            high=_float(rule.get("high")),
            detail=str(rule.get("detail") or ""),
        )


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _weights(release: Path) -> list[tuple[str, str]]:
    return [
        (shard.name, shard.sha256) for shard in read_manifest(release).shards if shard.name.endswith(".safetensors")
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _compact(value: float) -> str:
    """Return a large number as people say it: 1234567 → "1.23 M"."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return _number(value)


def _unit(name: str) -> str:
    return "URLs" if name == "urls" else name.capitalize()


def _size(value: float) -> str:
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def _percent(value: float) -> str:
    if 0 < value < 0.001:
        return "< 0.1%"
    return f"{value:.1%}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
