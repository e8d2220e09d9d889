"""What differs between two releases: sources, rules, counts, data, params, code and scores.

A pure function of two release folders, so that releases of different machines can be compared. What only the workspace
that made them knows (documents one by one, the code that ran) is handed in, from `difference_workspace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from flows.history.releases import read_mark
from flows.proof.difference_scores import GateChange, ScoreChange, compare_gates, compare_scores
from flows.proof.difference_settings import RuleChange, SettingChange, compare_rules, compare_settings, in_pipeline
from flows.proof.difference_sources import NotTold, SourceChange, compare_sources
from flows.proof.difference_workspace import Overlap, Run
from flows.proof.release_files import RELEASE, ReleaseFiles, open_release
from tasks.contracts.durable_files import canonical_json
from tasks.contracts.manifest import Manifest
from tasks.contracts.release import BILL_NAME, GATE_NAME, SIGNATURE_NAME, TAKEDOWN_NOTICE_NAME, VERIFIER_NAME
from tasks.contracts.stages import params_of

Row = TypeVar("Row", SettingChange, RuleChange, SourceChange, ScoreChange, GateChange, "CountChange", "VersionChange")

SETTINGS, INPUTS, FILES, COUNTS, ADDED, REMOVED = "settings", "inputs", "files", "counts", "added", "removed"
"""Why a stage's manifest is another one. FILES: nothing but the files, though settings and inputs are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two releases.

    Attributes:
        verdict: the gate's; None where there is no report.
        takedowns: tombstones that it is marked with; `marked` also where the mark names none.
        signed: whether a signature stands beside it; only `headwater verify` says whether it holds.
        broken: what in its folder is not as its manifest says, a sentence each. Of releases with one manifest every
            file is hashed; of others, names and kinds are looked at.
    """

    name: str
    manifest_sha256: str
    weights_sha256: str
    folder: str
    verdict: str | None
    marked: bool
    takedowns: tuple[str, ...]
    signed: bool
    broken: tuple[str, ...]

    @property
    def beside(self) -> tuple[bool, tuple[str, ...], bool]:
        """What stands beside the release's own files, which its manifest does not know."""
        return self.marked, self.takedowns, self.signed


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCounts:
    """How many files of a stage are the same, changed, in the second release only, and in the first only."""

    same: int
    changed: int
    new: int
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChange:
    """One stage's output.

    Attributes:
        a, b: SHA-256 of its manifest; None where a release has no such stage.
        why: of SETTINGS, INPUTS, FILES, COUNTS, ADDED, REMOVED; empty where the manifests are one.
        inputs: those that differ; `differ`: the names of the files that do, or that one release lacks.
        first: no stage before it differs: it is where the releases part.
        code: where `why` is FILES, whether "same" or "other" code made them, or "unknown".
    """

    stage: str
    a: str | None
    b: str | None
    why: tuple[str, ...]
    inputs: tuple[str, ...]
    files: FileCounts
    differ: tuple[str, ...]
    first: bool = False
    code: str | None = None

    @property
    def same(self) -> bool:
        """Whether both have the same output."""
        return self.a == self.b


@dataclass(frozen=True, slots=True, kw_only=True)
class CountChange:
    """One count of a stage: what is "in", "out" or "dropped"; None where a release has no such stage."""

    stage: str
    unit: str
    what: str
    rule: str | None
    a: int | None
    b: int | None

    @property
    def same(self) -> bool:
        """Whether both counted the same."""
        return self.a == self.b


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChange:
    """One thing that the releases were made with.

    Attributes:
        kind: "library" (pinned, from the bill of materials), "program" (the SHA-256 of the verify.py that the code
            wrote), or of the run records: "commit" of a stage, and "installed" version of a library in a stage.
    """

    kind: str
    name: str
    a: str | None
    b: str | None

    @property
    def same(self) -> bool:
        """Whether both were made with the same."""
        return self.a == self.b


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All that differs between release a and release b; the rows that do not are there when asked for.

    Attributes:
        stages: every stage of either release, in order.
        settings: by dotted name, the list of filters apart in `rules`.
        documents: how many are in both; None where a list of them is not kept here.
        not_told: kinds of source that cannot be compared, and why.
    """

    a: Side
    b: Side
    stages: tuple[StageChange, ...]
    scores: tuple[ScoreChange, ...]
    gate: tuple[GateChange, ...]
    settings: tuple[SettingChange, ...]
    rules: tuple[RuleChange, ...]
    sources: tuple[SourceChange, ...]
    not_told: tuple[NotTold, ...]
    documents: Overlap | None
    counts: tuple[CountChange, ...]
    code: tuple[VersionChange, ...]

    @property
    def same(self) -> bool:
        """Whether the two are one release, each folder whole, with the same marks and a signature or none."""
        if self.a.broken or self.b.broken:
            return False
        return self.a.manifest_sha256 == self.b.manifest_sha256 and self.a.beside == self.b.beside


def compare(
    a: ReleaseFiles,
    b: ReleaseFiles,
    *,
    everything: bool = False,
    runs: tuple[Mapping[str, Run], Mapping[str, Run]] = ({}, {}),
    documents: Overlap | None = None,
) -> Difference:
    """Compare two releases.

    Args:
        everything: keep the rows that are the same in both too.
        runs: of each release, stage → the run that made it, where that is known.
        documents: their documents compared one by one, where lists of them are kept.

    Raises:
        InputError: a file of a release is missing or damaged.
    """
    sources, not_told = compare_sources(a, b)

    def kept(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return rows if everything else tuple(row for row in rows if not row.same)

    gates = compare_gates(a, b)
    return Difference(
        a=_side(a, b),
        b=_side(b, a),
        stages=compare_stages(a, b, runs),
        scores=kept(compare_scores(a, b)),
        gate=kept(gates),
        settings=kept(compare_settings(a.manifests, b.manifests)),
        rules=tuple(
            rule if everything else replace(rule, settings=kept(rule.settings))
            for rule in kept(compare_rules(a.manifests, b.manifests))
        ),
        sources=kept(sources),
        not_told=not_told,
        documents=documents,
        counts=kept(compare_counts(a.manifests, b.manifests)),
        code=kept(compare_code(a, b, runs)),
    )


def compare_folders(a: Path, b: Path, *, everything: bool = False) -> Difference:
    """Compare two release folders by themselves.

    Raises:
        InputError: one of them is no release, or a file of it is missing or damaged.
    """
    return compare(open_release(a), open_release(b), everything=everything)


def compare_stages(
    a: ReleaseFiles, b: ReleaseFiles, runs: tuple[Mapping[str, Run], Mapping[str, Run]] = ({}, {})
) -> tuple[StageChange, ...]:
    """Return every stage of either release, and why its output differs; the first that differs is marked."""
    found: list[StageChange] = []
    for stage in in_pipeline(a.manifests, b.manifests):
        first, second = a.manifests.get(stage), b.manifests.get(stage)
        files, differ = _files(first, second)
        why, inputs = _why(first, second, differ)
        change = StageChange(
            stage=stage,
            a=a.hashes.get(stage),
            b=b.hashes.get(stage),
            why=() if a.hashes.get(stage) == b.hashes.get(stage) else why,
            inputs=inputs,
            files=files,
            differ=differ,
        )
        if change.why == (FILES,):
            change = replace(change, code=_code_of(runs[0].get(stage), runs[1].get(stage)))
        if not change.same and all(before.same for before in found):
            change = replace(change, first=True)
        found.append(change)
    return tuple(found)


def compare_counts(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> tuple[CountChange, ...]:
    """Return what each stage took in, put out, and dropped by each rule; a rule that dropped nothing counts as 0."""
    found: list[CountChange] = []
    for stage in in_pipeline(a, b):
        if stage == RELEASE:
            continue
        sides = (a.get(stage), b.get(stage))
        units = sorted({side.unit for side in sides if side is not None})
        dropped = sorted({rule for side in sides if side is not None for rule in side.counts.dropped})
        for what, rule in [("in", None), ("out", None), *(("dropped", rule) for rule in dropped)]:
            numbers = [_count(side, what, rule) for side in sides]
            found.append(
                CountChange(stage=stage, unit=" or ".join(units), what=what, rule=rule, a=numbers[0], b=numbers[1])
            )
    return tuple(found)


def compare_code(
    a: ReleaseFiles, b: ReleaseFiles, runs: tuple[Mapping[str, Run], Mapping[str, Run]] = ({}, {})
) -> tuple[VersionChange, ...]:
    """Return what is known of the code: the pinned libraries, and of the runs that are known their commits."""
    found = [
        VersionChange(kind="program", name=VERIFIER_NAME, a=a.listed.get(VERIFIER_NAME), b=b.listed.get(VERIFIER_NAME))
    ]
    for stage in in_pipeline(a.manifests, b.manifests):
        if stage not in runs[0] or stage not in runs[1]:
            continue
        pair = (runs[0][stage], runs[1][stage])
        said = [_commit(run) for run in pair]
        found.append(VersionChange(kind="commit", name=stage, a=said[0], b=said[1]))
        for name in sorted({*pair[0].versions, *pair[1].versions}):
            versions = [run.versions.get(name) for run in pair]
            found.append(VersionChange(kind="installed", name=f"{stage}: {name}", a=versions[0], b=versions[1]))
    pinned = [release.read(BILL_NAME, _libraries) for release in (a, b)]
    if pinned[0] is not None and pinned[1] is not None:
        for name in sorted({*pinned[0], *pinned[1]}):
            found.append(VersionChange(kind="library", name=name, a=pinned[0].get(name), b=pinned[1].get(name)))
    return tuple(found)


def _side(release: ReleaseFiles, other: ReleaseFiles) -> Side:
    mark = read_mark(release.folder)
    breaks = release.breaks(contents=release.hashes[RELEASE] == other.hashes[RELEASE])
    tombstones: Any = (mark or {}).get("tombstones")
    return Side(
        name=release.name,
        manifest_sha256=release.hashes[RELEASE],
        weights_sha256=release.weights_sha256,
        folder=str(release.folder),
        verdict=release.read(GATE_NAME, lambda report: str(report["verdict"])),
        marked=mark is not None or (release.folder / TAKEDOWN_NOTICE_NAME).is_file(),
        takedowns=tuple(sorted(tombstones)) if isinstance(tombstones, dict) else (),
        signed=(release.folder / SIGNATURE_NAME).is_file(),
        broken=tuple(f"{one.where}: {one.found} (expected: {one.expected})" for one in breaks),
    )


def _why(a: Manifest | None, b: Manifest | None, differ: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return why two manifests differ, and which of their inputs do."""
    if a is None or b is None:
        return (ADDED,) if a is None else (REMOVED,), ()
    inputs = tuple(name for name in sorted({*a.inputs, *b.inputs}) if a.inputs.get(name) != b.inputs.get(name))
    model = params_of(a.stage)
    made = model.derived() if inputs and model else ()
    params = [canonical_json({key: value for key, value in one.params.items() if key not in made}) for one in (a, b)]
    own = [SETTINGS] if params[0] != params[1] else []
    if why := (*own, *([INPUTS] if inputs else [])):
        return why, inputs
    return (FILES,) if differ else (COUNTS,), ()


def _files(a: Manifest | None, b: Manifest | None) -> tuple[FileCounts, tuple[str, ...]]:
    """Return how many files are the same, and which are not."""
    first, second = ({} if one is None else {file.name: file.sha256 for file in one.shards} for one in (a, b))
    both = first.keys() & second.keys()
    same = {name for name in both if first[name] == second[name]}
    counts = FileCounts(
        same=len(same),
        changed=len(both - same),
        new=len(second.keys() - both),
        gone=len(first.keys() - both),
    )
    return counts, tuple(sorted((first.keys() | second.keys()) - same))


def _code_of(a: Run | None, b: Run | None) -> str:
    """Return whether two runs had the same code and libraries, as far as their records say."""
    if a is None or b is None:
        return "unknown"
    if a.versions != b.versions or a.commit != b.commit:
        return "other"
    return "same" if a.known and b.known else "unknown"


def _count(manifest: Manifest | None, what: str, rule: str | None) -> int | None:
    if manifest is None:
        return None
    if rule is not None:
        return manifest.counts.dropped.get(rule, 0)
    return manifest.counts.in_ if what == "in" else manifest.counts.out


def _commit(run: Run) -> str | None:
    return None if run.commit is None else run.commit + (", with changes" if run.dirty else "")


def _libraries(bill: Any) -> dict[str, str]:
    return {str(one["name"]): str(one["version"]) for one in bill["components"] if one["type"] == "library"}
