"""Each planted change is found and named, and nothing else; the other way round it is said the other way round."""

import itertools
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.history.releases import documents_file
from flows.proof import difference_workspace
from flows.proof.difference import Difference, compare, compare_folders, compare_stages
from flows.proof.difference_settings import compare_settings, in_order
from flows.proof.difference_workspace import Overlap, Run, overlap
from flows.proof.release_files import open_release
from tasks.contracts.durable_files import canonical_json
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import Counts, Manifest
from tests.flows.proof.two_releases import BITS, MIT, PAGES, PARAMS, RIGHT, Plan, make, page
from tests.mutations import mutate

FILTERS = PARAMS["filter"]["rules"]
BETTER = tuple(bits - 0.25 - 0.01 * number for number, bits in enumerate(BITS))
MIXED = tuple(bits + (0.5 if number % 2 else -0.5) for number, bits in enumerate(BITS))
AFTER_CRAWL = ("extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix", "tokenizer", "tokenize")
MODEL = ("train", "evaluate", "gate", "release")


def filters(*rules: Mapping[str, Any]) -> Plan:
    return Plan(params={"filter": {"rules": list(rules)}})


def follow(*stages: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(stages, ("inputs",))


# Name → what was changed, and what must be said of it; what is not named must not be said.
CASES: dict[str, tuple[Plan, dict[str, Any]]] = {
    "a threshold of dedup, which now drops more": (
        Plan(params={"dedup": {"threshold": 0.7}}, dropped={"dedup": {"near_duplicate": 5, "exact_text": 1}}),
        {
            "settings": {"dedup.threshold": (0.8, 0.7)},
            "counts": {"dedup in": (6, 9), "dedup near_duplicate": (3, 5), "dedup exact_text": (0, 1)},
            "stages": {"dedup": ("settings",)} | follow(*AFTER_CRAWL[3:], *MODEL),
        },
    ),
    "a filter's threshold": (
        filters({"length": {"min_words": 40, "max_words": 1000}}, *FILTERS[1:]),
        {
            "rules": {"length": (1, 1, False, {"min_words": (50, 40)})},
            "stages": {"filter": ("settings",)} | follow(*AFTER_CRAWL[2:], *MODEL),
        },
    ),
    "a filter added, so that others stand later": (
        filters(FILTERS[0], {"pii": {}}, *FILTERS[1:]),
        {
            "rules": {"pii": (None, 2, False, {})},
            "stages": {"filter": ("settings",)} | follow(*AFTER_CRAWL[2:], *MODEL),
        },
    ),
    "a filter removed": (
        filters(*FILTERS[:2], FILTERS[3]),
        {
            "rules": {"c4": (3, None, False, {})},
            "stages": {"filter": ("settings",)} | follow(*AFTER_CRAWL[2:], *MODEL),
        },
    ),
    "the last filter moved to the front": (
        filters(FILTERS[3], *FILTERS[:3]),
        {
            "rules": {"secrets": (4, 1, True, {})},
            "stages": {"filter": ("settings",)} | follow(*AFTER_CRAWL[2:], *MODEL),
        },
    ),
    "a group's weight, a group more, and the order of groups": (
        Plan(params={"mix": {"groups": [{"name": "rest", "weight": 0.5}, {"name": "books", "weight": 0.25}]}}),
        {
            "settings": {"mix.groups": (["books", "rest"], ["rest", "books"]), "mix.groups.books.weight": (0.5, 0.25)},
            "stages": {"mix": ("settings",)} | follow("tokenizer", "tokenize", *MODEL),
        },
    ),
    "the gate's policy, which training holds a copy and a hash of": (
        Plan(
            params={
                "gate": {"seed": 2},
                "train": {"policy": {"seed": 2}, "policy_sha256": "p2"},
            }
        ),
        {
            "settings": {"gate.seed": (1, 2)},
            "stages": {"train": ("settings",), "gate": ("settings", "inputs")} | follow("evaluate", "release"),
        },
    ),
    "a model of perplexity made from other text is no setting of its own": (
        Plan(params={"perplexity": {"models": {"en": ["2" * 64]}}}, files={"crawl/more.bin": b"x"}),
        {
            "settings": {"perplexity.models.en": (["1" * 64], ["2" * 64])},
            "stages": {"crawl": ("files",)} | follow(*AFTER_CRAWL, *MODEL),
        },
    ),
    "training that gave other weights from the same": (
        Plan(weights="w2"),
        {"stages": {"train": ("files",)} | follow("evaluate", "release") | {"gate": ("inputs",)}},
    ),
    "another snapshot of other pages": (
        Plan(
            pages=(*PAGES[1:], page("long", "d.one.example", language="fr"), page("e2", "two.example")),
            sources={"pages.warc.gz": "b" * 64, "more.warc.gz": "c" * 64},
        ),
        {
            "sources": {
                ("host", "docs.one.example"): (1, None),
                ("host", "d.one.example"): (None, 1),
                ("host", "two.example"): (None, 1),
                ("domain", "one.example"): (3, 3),
                ("domain", "two.example"): (None, 1),
                ("language", "en"): (3, 3),
                ("language", "fr"): (None, 1),
                ("licence", MIT): (1, None),
                ("licence", "not stated"): (2, 4),
                ("file", "pages.warc.gz"): ("a" * 64, "b" * 64),
                ("file", "more.warc.gz"): (None, "c" * 64),
            },
            "counts": {f"{stage} {what}": (3 + n, 4 + n) for stage, n in (
                ("crawl", 4), ("extract", 0), ("filter", 7), ("dedup", 3), ("perplexity", 0), ("holdout", 0),
                ("decontaminate", 0), ("mix", 0), ("tokenizer", 0), ("tokenize", 0), ("train", 0), ("evaluate", 0),
                ("gate", 0),
            ) for what in ("in",)} | {f"{stage} out": (3, 4) for stage in ("crawl", *AFTER_CRAWL, *MODEL[:3])},
            "stages": {"crawl": ("files",)} | follow(*AFTER_CRAWL, *MODEL),
        },
    ),
    "better on the same items": (
        Plan(bits=BETTER),
        {
            "scores": {"text bits_per_byte": (True, "b"), "text byte_perplexity": (True, None)},
            "stages": {"evaluate": ("files",)} | follow("gate", "release"),
        },
    ),
    "better and worse by turns on the same items": (
        Plan(bits=MIXED[:-2] + BITS[-2:-1] + (BITS[-1] + 0.01,)),
        {
            "scores": {"text bits_per_byte": (True, "unclear"), "text byte_perplexity": (True, None)},
            "stages": {"evaluate": ("files",)} | follow("gate", "release"),
        },
    ),
    "scored on other items": (
        Plan(items="others"),
        {
            "scores": {
                "choice acc": (False, None), "text bits_per_byte": (False, None), "text byte_perplexity": (False, None),
            },
            "stages": {"evaluate": ("files",)} | follow("gate", "release"),
        },
    ),
    "more right answers": (
        Plan(right=(1.0,) * len(RIGHT)),
        {
            "scores": {"choice acc": (True, "b")},
            "stages": {"evaluate": ("files",)} | follow("gate", "release"),
        },
    ),
    "the same scores by another number of solved examples": (
        Plan(num_fewshot=5),
        {
            "scores": {
                "choice acc": (False, None), "text bits_per_byte": (False, None), "text byte_perplexity": (False, None),
            },
            "stages": {"evaluate": ("files",)} | follow("gate", "release"),
        },
    ),
    "the gate's floor": (
        Plan(floor=-0.45),
        {"gate": {"floor": (-0.5, -0.45)}, "stages": {"gate": ("files",), "release": ("inputs",)}},
    ),
    "a library": (
        Plan(constraints="torch==2.14.0\nnumpy==2.4.0\npolars==2.1.0\n"),
        {
            "code": {"library torch": ("2.13.0", "2.14.0"), "library polars": (None, "2.1.0")},
            "stages": {"release": ("files",)},
        },
    ),
    "a statement of the release": (
        Plan(release={"statement": {"sme": True}}),
        {"settings": {"release.statement.sme": (None, True)}, "stages": {"release": ("settings",)}},
    ),
}  # fmt: skip


def said(found: Difference) -> dict[str, Any]:
    """Return what a difference says, in short; only what there is."""
    everything = {
        "settings": {one.name: (one.a, one.b) for one in found.settings},
        "rules": {
            one.rule: (one.a, one.b, one.moved, {setting.name: (setting.a, setting.b) for setting in one.settings})
            for one in found.rules
        },
        "counts": {f"{one.stage} {one.rule or one.what}": (one.a, one.b) for one in found.counts},
        "sources": {(one.kind, one.name): tuple(map(brief, (one.a, one.b))) for one in found.sources},
        "scores": {f"{one.task} {one.metric}": (one.same_items, one.better) for one in found.scores},
        "gate": {one.rule: (one.a and one.a.value, one.b and one.b.value) for one in found.gate},
        "code": {f"{one.kind} {one.name}": (one.a, one.b) for one in found.code},
        "stages": {one.stage: one.why for one in found.stages if one.why},
    }
    return {name: value for name, value in everything.items() if value}


def brief(source: Any) -> Any:
    return None if source is None else source.documents or source.value


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The release of every case, and the one that none of them changed."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        patch.chdir(root)
        plans = {"none": Plan(), **{name: plan for name, (plan, _) in CASES.items()}}
        yield {name: make(root / str(number), plan) for number, (name, plan) in enumerate(plans.items())}


@pytest.mark.parametrize("case", CASES)
def test_a_planted_change_is_found_and_named_and_nothing_else(made: dict[str, Path], case: str) -> None:
    found = compare_folders(made["none"], made[case])
    expected = CASES[case][1]
    assert said(found) == expected
    assert not found.same
    assert [stage.stage for stage in found.stages if stage.first] == [next(iter(expected["stages"]))]


def test_a_release_does_not_differ_from_itself_nor_from_one_made_elsewhere(
    made: dict[str, Path], workspace: Path
) -> None:
    again = make(workspace / "again", Plan())
    for other in (made["none"], again):
        found = compare_folders(made["none"], other)
        assert found.same
        assert said(found) == {}
        assert not any(stage.why or stage.first for stage in found.stages)
        assert len(found.stages) == 14
        whole = compare_folders(made["none"], other, everything=True)
        rows: tuple[tuple[Any, ...], ...] = (
            whole.settings,
            whole.rules,
            whole.counts,
            whole.sources,
            whole.scores,
            whole.gate,
            whole.code,
        )
        assert all(rows)
        assert all(row.same for row in itertools.chain(*rows))


def test_the_other_way_round_says_the_same_the_other_way_round(made: dict[str, Path]) -> None:
    opened = {name: open_release(folder) for name, folder in made.items()}
    pairs = [(opened["none"], other) for name, other in opened.items() if name != "none"]
    for first, second in [*pairs, *itertools.pairwise(opened.values())]:
        assert mirrored(compare(first, second)) == compare(second, first)


SWAPPED = {"added": "removed", "removed": "added", "a": "b", "b": "a"}


def mirrored(found: Any) -> Any:
    """Exchange a and b in all that a difference holds."""
    if isinstance(found, tuple):
        return tuple(mirrored(one) for one in found)
    if not is_dataclass(found) or isinstance(found, type):
        return found
    values = {one.name: mirrored(getattr(found, one.name)) for one in fields(found)}
    for first, second in (("a", "b"), ("new", "gone"), ("only_a", "only_b")):
        if first in values:
            values[first], values[second] = values[second], values[first]
    for name in ("better", "only_in", "release"):
        if name in values:
            values[name] = SWAPPED.get(values[name], values[name])
    if "why" in values and isinstance(values["why"], tuple):
        values["why"] = tuple(SWAPPED.get(one, one) for one in values["why"])
    if "metric" in values:
        a, b, shared = values["items"]
        values["items"] = (b, a, shared)
        low, high = values["low"], values["high"]
        values["low"], values["high"] = (None, None) if low is None else (0 - high, 0 - low)
    made = object.__new__(type(found))
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def test_an_interval_holds_the_true_difference_and_says_nothing_on_other_items(made: dict[str, Path]) -> None:
    one = next(
        score
        for score in compare_folders(made["none"], made["better on the same items"]).scores
        if score.metric == "bits_per_byte"
    )
    true = sum(BETTER) / len(BETTER) - sum(BITS) / len(BITS)
    assert one.difference == pytest.approx(true, abs=1e-6)
    assert one.low is not None
    assert one.high is not None
    assert min(b - a for a, b in zip(BITS, BETTER, strict=True)) <= one.low < true < one.high < -0.25
    other = compare_folders(made["none"], made["scored on other items"]).scores[0]
    assert (other.low, other.high, other.items) == (None, None, (12, 12, 0))


def test_files_that_differ_are_counted_and_named(made: dict[str, Path], workspace: Path) -> None:
    first = make(workspace / "a", Plan(files={"crawl/part-0.bin": b"0", "crawl/part-1.bin": b"1"}))
    second = make(workspace / "b", Plan(files={"crawl/part-1.bin": b"changed", "crawl/part-2.bin": b"2"}))
    crawl = compare_folders(first, second).stages[0]
    counts = (crawl.files.same, crawl.files.changed, crawl.files.new, crawl.files.gone)
    assert counts == (2, 1, 1, 1)
    assert crawl.differ == ("part-0.bin", "part-1.bin", "part-2.bin")


def test_whether_other_files_are_chance_or_other_code_is_what_the_run_records_say(made: dict[str, Path]) -> None:
    pair = open_release(made["none"]), open_release(made["training that gave other weights from the same"])
    run = Run(commit="c" * 40, dirty=False, versions={"torch": "2.13.0"})
    for other, expected in (
        (run, "same"),
        (replace(run, commit="d" * 40), "other"),
        (replace(run, versions={"torch": "2.14.0"}), "other"),
        (replace(run, dirty=True), "unknown"),
        (None, "unknown"),
    ):
        runs: tuple[dict[str, Run], dict[str, Run]] = ({"train": run}, {} if other is None else {"train": other})
        assert {stage.stage: stage.code for stage in compare_stages(*pair, runs)}["train"] == expected
        named = {one.name for one in compare(*pair, runs=runs).code}
        assert (
            named
            == {
                "same": set(),
                "other": {"train"} if other and other.commit != run.commit else {"train: torch"},
                "unknown": {"train"} if other else set(),
            }[expected]
        )


def test_marks_and_a_signature_beside_one_release_are_differences(made: dict[str, Path], workspace: Path) -> None:
    again = make(workspace / "again", Plan())
    (again / "model.sig").write_text("signature")
    (again / "takedown.json").write_text('{"tombstones": {"t2": {}, "t1": {}}}')
    found = compare_folders(made["none"], again)
    assert not found.same
    assert said(found) == {}
    assert (found.b.signed, found.b.marked, found.b.takedowns) == (True, True, ("t1", "t2"))
    assert not found.a.signed
    assert not found.a.marked


READ = (
    "manifests/crawl.json",
    "manifests/gate.json",
    "lineage.json",
    "gate.json",
    "evaluation/results.json",
    "evaluation/samples/text.jsonl",
    "sources.json",
    "prov.jsonld",
    "mlbom.cdx.json",
)


@pytest.mark.parametrize("kind", ["bit flip", "truncation", "missing"])
@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_named_with_what_to_do(made: dict[str, Path], tmp_path: Path, name: str, kind: str) -> None:
    folder = shutil.copytree(made["none"], tmp_path / "release")
    place = (folder / name).parent
    mutate(place, random.Random(1), only=Path(name).name, kind=kind)
    with pytest.raises(InputError) as raised:
        compare_folders(made["better on the same items"], folder)
    assert raised.value.where == str(folder / name)
    assert f"headwater verify {folder}" in str(raised.value)


WITHOUT_FILES = Manifest(
    stage="release", unit="files", params={}, inputs={}, shards=(), counts=Counts(in_=0, out=0)
).model_dump_json(by_alias=True)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"stage": "release"}', WITHOUT_FILES.encode()])
def test_a_release_without_its_manifest_is_none(made: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="no release"):
        open_release(tmp_path)
    (tmp_path / "_manifest.json").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        open_release(tmp_path)
    with pytest.raises(InputError, match="stage crawl"):
        open_release(made["none"].parent / "crawl")


def test_papers_that_a_release_never_had_are_said_to_be_missing_and_no_damage(
    made: dict[str, Path], workspace: Path
) -> None:
    old = open_release(made["none"])
    old = replace(old, listed={name: sha for name, sha in old.listed.items() if name != "prov.jsonld"})
    found = compare(old, open_release(made["another snapshot of other pages"]))
    assert [(one.kind, one.release) for one in found.not_told] == [("file", "a")]
    assert "prov.jsonld" in found.not_told[0].why
    assert {one.kind for one in found.sources} == {"language", "domain", "licence", "host"}


@given(st.permutations("abcdefg"), st.permutations("abcdefg"))
def test_as_few_filters_as_possible_are_called_moved(first: list[str], second: list[str]) -> None:
    stay = in_order(first, second)
    assert stay == in_order(second, first)
    assert [name for name in first if name in stay] == [name for name in second if name in stay]
    place = [second.index(name) for name in first]
    sizes = (len(some) for n in range(1, 8) for some in itertools.combinations(place, n) if sorted(some) == list(some))
    assert len(stay) == max(sizes)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, 1.5]) | st.sampled_from(["x", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("pqr"), inner, min_size=1, max_size=2),
    max_leaves=6,
)
SETTINGS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


@example({"a": 1}, {"a": 1.0})
@example({"a": [True]}, {"a": [1]})
@example({"a": {}}, {"a": {"p": 1}})
@given(SETTINGS, SETTINGS)
def test_settings_differ_exactly_where_their_literals_do(a: dict[str, Any], b: dict[str, Any]) -> None:
    manifests = [
        {
            "dedup": Manifest(
                stage="dedup", unit="documents", params=params, inputs={}, shards=(), counts=Counts(in_=0, out=0)
            )
        }
        for params in (a, b)
    ]
    found = [one for one in compare_settings(*manifests) if not one.same]
    assert {one.name.split(".")[1] for one in found} == {
        key for key in {*a, *b} if key not in a or key not in b or canonical_json(a[key]) != canonical_json(b[key])
    }


NUMBERS = st.sets(st.integers(0, 2**16 - 1))


@given(st.sets(st.binary(min_size=16, max_size=16)), NUMBERS, NUMBERS)
def test_documents_are_compared_as_sets(
    tmp_path_factory: pytest.TempPathFactory, both: set[bytes], a: set[int], b: set[int]
) -> None:
    """Ids that end in zeros, and pieces of which one release has nothing, among them."""
    ids = [both | {number.to_bytes(2, "big") + bytes(14) for number in one} for one in (a, b)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(tmp_path_factory.mktemp("ids")))
        patch.setattr(difference_workspace, "CHUNK_HASHES", 3)
        sides: list[Any] = []
        for name, one in zip("ab", ids, strict=True):
            path = documents_file(name)
            path.parent.mkdir(parents=True)
            path.write_bytes(b"".join(sorted(one)))
            sides.append(type("Files", (), {"hashes": {"release": name}}))
        found = overlap(*sides)
        assert found == Overlap(both=len(ids[0] & ids[1]), only_a=len(ids[0] - ids[1]), only_b=len(ids[1] - ids[0]))
        documents_file("b").unlink()
        assert overlap(*sides) is None


def test_ids_are_as_wide_as_the_lists_that_are_kept() -> None:
    assert np.dtype(difference_workspace._DOC_ID).itemsize == 16


def test_files_are_shown_as_they_were_set_and_their_content_where_it_differs() -> None:
    from flows.proof.difference_settings import compare_settings
    from tasks.contracts.manifest import Counts, Manifest

    def manifest(benchmarks: dict[str, str]) -> dict[str, Manifest]:
        made = Manifest(
            stage="decontaminate",
            schema_version=1,
            unit="documents",
            params={"benchmarks": benchmarks, "ngram": 13},
            inputs={},
            shards=(),
            counts=Counts(in_=0, out=0),
        )
        return {"decontaminate": made}

    changes = compare_settings(
        manifest({"quiz.jsonl": "a" * 64}), manifest({"quiz.jsonl": "b" * 64, "sums.jsonl": "c" * 64})
    )
    shown = {change.name: (change.a, change.b) for change in changes if not change.same}
    assert shown == {
        "decontaminate.benchmarks": (["quiz.jsonl"], ["quiz.jsonl", "sums.jsonl"]),
        "decontaminate.benchmarks.quiz.jsonl (content)": ("a" * 64, "b" * 64),
    }
