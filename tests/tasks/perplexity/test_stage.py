"""The perplexity stage: prose against word salad, the cut points, and what happens without text or tool."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.contracts.document import Document, make_doc_id, read_documents, write_documents, write_rows
from tasks.contracts.errors import CorpusTooSmallError, InputError, ModelError, ParamsError, ToolMissingError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.engine.shards import MapResult, ShardWork, map_shards
from tasks.perplexity import stage as stage_module
from tasks.perplexity.kenlm_model import find_tool
from tasks.perplexity.reference import Reference
from tasks.perplexity.stage import PERCENTILE, VALUE, Params, run

SUBJECTS = ("the parser", "a reader", "the old server", "this module", "every worker", "the small file")
VERBS = ("reads", "returns", "keeps", "closes", "checks", "writes")
OBJECTS = ("the next line of the file", "a list of names", "one value for each key", "what it was given", "the log")
ENDS = ("before it stops", "when the user asks", "without a copy", "if there is any", "as soon as it can")

Fates = dict[str, float | None]


def prose(seed: int, sentences: int = 25) -> str:
    rng = random.Random(seed)
    return "\n".join(
        f"{rng.choice(SUBJECTS).capitalize()} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(ENDS)}."
        for _ in range(sentences)
    )


def salad(seed: int) -> str:
    words = prose(seed).split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def document(name: str, host: str, text: str) -> Document:
    return Document(
        doc_id=make_doc_id("test", name),
        url=f"http://{host}/{name}",
        host=host,
        record_id=name,
        source="test",
        text=text,
    )


def corpus() -> list[Document]:
    documents = [document(f"good-{n}", f"{n % 3}.reference.example", prose(n)) for n in range(30)]
    documents += [document(f"other-{n}", "other.example", prose(1_000 + n)) for n in range(15)]
    return [*documents, *(document(f"salad-{n}", "other.example", salad(2_000 + n)) for n in range(5))]


REFERENCE = Reference(hosts=("*.reference.example",))
SMALL = Params(reference=REFERENCE, min_reference_words=500, memory="64M", max_percentile=90, units="words")


class Outcome:
    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        parts = sorted(p.name for p in folder.glob("part-*.parquet"))
        self.kept = {d.record_id: d for name in parts for d in read_documents(folder / name)}
        self.ledger = {r.record_id: r for name in parts for r in read_ledger(folder / "dropped" / name)}
        self.model = json.loads((folder / "model.json").read_text())

    def values(self) -> dict[str, float]:
        kept = {name: d.scores[VALUE] for name, d in self.kept.items() if VALUE in d.scores}
        return kept | {str(name): float(r.score or 0) for name, r in self.ledger.items()}


Perplexity = Callable[..., Outcome]


@pytest.fixture
def perplexity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perplexity:
    """Run the stage on documents cut into the given parts; runs of one test share the shard cache."""
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    runs = iter(range(10**6))

    def go(*parts: Sequence[Document], params: Params = SMALL) -> Outcome:
        place = tmp_path / f"run-{next(runs)}"
        source = place / "dedup"
        source.mkdir(parents=True)
        for index, part in enumerate(parts):
            write_documents(source / f"part-{index:05d}.parquet", part)
        total = sum(map(len, parts))
        counts = Counts(in_=total, out=total)
        commit_manifest(source, stage="dedup", unit="documents", params={}, inputs={}, counts=counts)
        manifest = run(params=params, inputs={"dedup": source}, output=place / "perplexity")
        return Outcome(place / "perplexity", manifest)

    return go


def test_word_salad_scores_far_above_prose_and_is_what_goes(perplexity: Perplexity) -> None:
    outcome = perplexity(corpus())
    values = outcome.values()
    salads = [value for name, value in values.items() if name.startswith("salad")]
    others = [value for name, value in values.items() if not name.startswith("salad")]
    assert min(salads) > 3 * max(others)
    assert set(outcome.ledger) == {f"salad-{n}" for n in range(5)}
    for row in outcome.ledger.values():
        assert (row.stage, row.action, row.rule) == ("perplexity", "drop", "worst")
        assert row.score is not None
        assert row.threshold is not None
        assert row.score >= row.threshold
    assert outcome.manifest.counts.dropped == {"worst": 5}
    assert all(0 <= d.scores[PERCENTILE] < 90 for d in outcome.kept.values())


def test_a_reference_document_is_scored_by_a_model_that_has_not_seen_it(perplexity: Perplexity) -> None:
    # Words of its own, said so often that a model which has seen it finds it the likeliest text of all.
    odd = document("odd", "0.reference.example", "\n".join(["Zebra quokka okapi numbat dingo wombat."] * 40))
    values = perplexity([*corpus(), odd]).values()
    assert values["odd"] > 3 * max(value for name, value in values.items() if name.startswith("good"))


def test_scores_do_not_depend_on_order_or_shards(perplexity: Perplexity) -> None:
    documents = corpus()
    whole = perplexity(documents)
    cut = perplexity(documents[40:], [], documents[7:40], documents[:7])
    assert cut.values() == whole.values()
    assert cut.kept == whole.kept
    assert cut.model == whole.model


def test_a_moved_threshold_scores_nothing_again(perplexity: Perplexity, monkeypatch: pytest.MonkeyPatch) -> None:
    hits: list[tuple[str, int]] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        result = map_shards(*args, **kwargs)
        hits.append((kwargs["stage"], result.hits))
        return result

    monkeypatch.setattr("tasks.engine.stage.map_shards", counted)
    first = perplexity(corpus()[:25], corpus()[25:])
    second = perplexity(corpus()[:25], corpus()[25:], params=SMALL.model_copy(update={"max_percentile": 50.0}))
    scored = [count for stage, count in hits if stage == "perplexity.scores"]
    assert scored == [0, 2]
    assert len(second.ledger) > len(first.ledger)
    assert second.values() == first.values()


def test_only_the_buckets_that_are_named_stay(perplexity: Perplexity) -> None:
    outcome = perplexity(
        corpus(), params=SMALL.model_copy(update={"keep": ("head", "middle"), "max_percentile": 100.0})
    )
    assert outcome.manifest.counts.dropped == {"tail": 20}
    assert all(d.scores[PERCENTILE] < 60 for d in outcome.kept.values())
    assert max(d.scores[VALUE] for d in outcome.kept.values()) < min(
        float(r.score or 0) for r in outcome.ledger.values()
    )


def test_reference_files_and_a_given_model_are_known_by_content(perplexity: Perplexity, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "reference.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps({"text": prose(n)}) + "\n" for n in range(20))
    (tmp_path / "same.txt").write_text("\n".join(prose(n) for n in range(20)))
    results = [
        perplexity(corpus(), params=SMALL.model_copy(update={"reference": Reference(files=(name,))}))
        for name in ("reference.jsonl.gz", "same.txt")
    ]
    assert results[0].manifest == results[1].manifest
    (binary,) = (tmp_path / "state" / "perplexity" / "models").glob("*.bin")
    binary.rename(tmp_path / "given.bin")
    given = perplexity(corpus(), params=SMALL.model_copy(update={"model": "given.bin", "reference": Reference()}))
    assert given.values() == results[0].values()
    assert given.model["kind"] == "given"


def test_too_little_reference_is_an_error_that_counts_or_falls_back_where_asked(perplexity: Perplexity) -> None:
    nothing = Reference(hosts=("nowhere.example",))
    with pytest.raises(CorpusTooSmallError) as caught:
        perplexity(corpus(), params=SMALL.model_copy(update={"reference": nothing}))
    assert caught.value.found == "0 words"
    assert "500" in str(caught.value.expected)
    falling_back = nothing.model_copy(update={"otherwise": "corpus"})
    outcome = perplexity(corpus(), params=SMALL.model_copy(update={"reference": falling_back}))
    assert outcome.model["reference"]["hosts"] == ["*"]
    assert set(outcome.ledger) == {f"salad-{n}" for n in range(5)}
    with pytest.raises(CorpusTooSmallError):
        perplexity([], params=SMALL.model_copy(update={"reference": falling_back}))


GERMAN = (
    "der",
    "die",
    "das",
    "ein",
    "und",
    "oder",
    "wenn",
    "liest",
    "schreibt",
    "hält",
    "jede",
    "neue",
    "Zeile",
    "Datei",
)


def german(seed: int) -> str:
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choices(GERMAN[i % 3 :: 3], k=7)) + "." for i in range(25))


def two_languages() -> list[Document]:
    english = [replace(d, language="en") for d in corpus()]
    others = [document(f"de-{n}", f"{n % 3}.reference.example", german(n)) for n in range(30)]
    french = document("fr", "other.example", "Le lecteur lit la ligne du fichier.")
    return [*english, *(replace(d, language="de") for d in others), replace(french, language="fr")]


def test_each_language_has_its_own_model_and_percentiles(perplexity: Perplexity) -> None:
    outcome = perplexity(two_languages(), params=SMALL.model_copy(update={"max_percentile": 100.0}))
    assert set(outcome.model["languages"]) == {"en", "de"}
    alone = perplexity(
        [replace(d, language="en") for d in corpus()], params=SMALL.model_copy(update={"max_percentile": 100.0})
    )
    for name, kept in alone.kept.items():
        assert outcome.kept[name].scores == kept.scores, "a second language changed what is said of the first"
    assert min(d.scores[PERCENTILE] for n, d in outcome.kept.items() if n.startswith("de")) == 0
    together = perplexity(two_languages(), params=SMALL.model_copy(update={"by_language": False}))
    assert set(together.model["languages"]) == {"any"}


def test_a_language_without_a_model_is_kept_dropped_or_scored_by_another(perplexity: Perplexity) -> None:
    outcomes = {
        what: perplexity(
            two_languages(), params=SMALL.model_copy(update={"without_model": what, "max_percentile": 100.0})
        )
        for what in ("keep", "drop", "de")
    }
    assert outcomes["keep"].kept["fr"].scores == {}
    assert outcomes["drop"].ledger["fr"].rule == "no_model"
    assert "fr" in str(outcomes["drop"].ledger["fr"].detail)
    assert outcomes["drop"].manifest.counts.dropped == {"no_model": 1}
    assert outcomes["de"].kept["fr"].scores[VALUE] > 0


def test_files_and_models_are_given_by_language(perplexity: Perplexity, tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("\n".join(prose(n) for n in range(20)))
    (tmp_path / "de.txt").write_text("\n".join(german(n) for n in range(20)))
    both = SMALL.model_copy(update={"reference": Reference(files={"en": ("en.txt",), "de": ("de.txt",)})})
    first = perplexity(two_languages(), params=both)
    (english,) = first.model["languages"]["en"]
    binary = tmp_path / "state" / "perplexity" / "models" / f"{english['sha256']}.bin"
    binary.rename(tmp_path / "english.bin")
    mixed = Params(
        model={"en": "english.bin"},
        reference=Reference(files={"de": ("de.txt",)}),
        min_reference_words=500,
        memory="64M",
        units="words",
        max_percentile=90,
    )
    assert perplexity(two_languages(), params=mixed).values() == first.values()
    (tmp_path / "de.txt").write_text("\n".join(german(500 + n) for n in range(20)))
    changed = perplexity(two_languages(), params=both)
    assert changed.values()["de-1"] != first.values()["de-1"]
    assert changed.values()["good-1"] == first.values()["good-1"]


def test_a_language_has_one_model_however_it_is_named(perplexity: Perplexity, tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("\n".join(prose(n) for n in range(20)))
    codes = SMALL.model_copy(update={"reference": Reference(files={"en": ("en.txt",)}), "without_model": "keep"})
    named = SMALL.model_copy(update={"reference": Reference(files={"eng_Latn": ("en.txt",)})})
    documents = [replace(one, language="English" if n % 2 else "en-US") for n, one in enumerate(corpus())]
    outcome = perplexity(documents, params=named)
    assert set(outcome.model["languages"]) == {"en"}
    assert outcome.values() == perplexity([replace(one, language="en") for one in corpus()], params=codes).values()
    assert Params(model={"ger": "x"}, without_model="German").model == {"de": "x"}
    assert Params(model={"ger": "x", "any": "y"}, without_model="German").without_model == "de"
    for wrong in ({"model": {"de": "x", "German": "y"}}, {"model": {"xx": "x"}}, {"without_model": "dropp"}):
        with pytest.raises(ValidationError, match=r"one language|no language"):
            Params(**wrong)


def test_a_perplexity_that_is_no_number_has_no_place(tmp_path: Path) -> None:
    values = [10.0, 20.0, math.nan, 30.0, 40.0]
    write_documents(tmp_path / "part-00000.parquet", [document(str(n), "a.example", "x") for n in range(5)])
    work = ShardWork(name="part-00000", inputs=(tmp_path / "part-00000.parquet",), input_hashes=("0",))
    rows = [{"model": "en", "value": value} for value in values]
    write_rows(tmp_path / "scores" / "part-00000.parquet", rows, stage_module._SCORE_SCHEMA)
    scored = MapResult(folders={work.name: tmp_path / "scores"})
    for most in (100.0, 97.0):
        params = Params(max_percentile=most, model="x")
        (decided,) = stage_module._write_decisions(params, [work], scored, tmp_path / "decisions")
        (tmp_path / "out").mkdir(exist_ok=True)
        stage_module._write_part(decided, tmp_path / "out")
        kept = list(read_documents(tmp_path / "out" / "part-00000.parquet"))
        assert [one.scores[PERCENTILE] for one in kept] == [0.0, 25.0, 50.0, 75.0]
        (row,) = read_ledger(tmp_path / "out" / "dropped" / "part-00000.parquet")
        assert (row.rule, row.detail) == ("worst", "its perplexity is no number")


def test_pieces_separate_salad_too_and_are_the_same_each_time(perplexity: Perplexity) -> None:
    pieces = SMALL.model_copy(update={"units": "pieces", "pieces": 300})
    documents = [*corpus(), document("new", "other.example", prose(77).replace("parser", "writerparser"))]
    first, second = perplexity(documents, params=pieces), perplexity(documents[20:], documents[:20], params=pieces)
    assert first.values() == second.values()
    assert set(first.ledger) >= {f"salad-{n}" for n in range(5)}
    assert first.values()["new"] != perplexity(documents).values()["new"], "a new word is made of known pieces"


def test_an_empty_reference_may_fall_back_to_the_corpus(perplexity: Perplexity) -> None:
    outcome = perplexity(corpus(), params=SMALL.model_copy(update={"reference": Reference(otherwise="corpus")}))
    assert outcome.model["reference"]["hosts"] == ["*"]


def test_prose_is_told_from_its_imitations(perplexity: Perplexity) -> None:
    """The same words shuffled, menus of them, and the page's own key words said again and again."""

    def menu(seed: int) -> str:
        words = prose(seed).replace(".", "").split()
        rng = random.Random(seed)
        return "\n".join(" | ".join(rng.choice(words).capitalize() for _ in range(6)) for _ in range(20))

    def spam(seed: int) -> str:
        rng = random.Random(seed)
        keys = rng.sample(sorted(set(prose(seed).lower().split())), 8)
        return ", ".join(rng.choices(keys, k=150))

    made = {"salad": salad, "menu": menu, "spam": spam}
    documents = [
        *corpus()[:45],
        *(document(f"{kind}-{n}", "other.example", make(500 + n)) for kind, make in made.items() for n in range(15)),
    ]
    values = perplexity(documents, params=SMALL.model_copy(update={"max_percentile": 100.0})).values()
    real = [value for name, value in values.items() if name.startswith("other")]
    for kind in made:
        imitations = [value for name, value in values.items() if name.startswith(kind)]
        above = sum(fake > true for fake in imitations for true in real) / (len(real) * len(imitations))
        assert above >= 0.97, kind


def test_a_missing_lmplz_says_how_to_build_it(
    perplexity: Perplexity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissingError, match=r"infra/build_lmplz\.sh"):
        perplexity(corpus())


def test_a_failing_lmplz_shows_its_last_words(
    perplexity: Perplexity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lmplz", "build_binary"):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
        tool.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    assert find_tool("lmplz") == tmp_path / "bin" / "lmplz"
    with pytest.raises(ModelError, match=r"exit status 3[\s\S]*out of luck"):
        perplexity(corpus())


def test_a_document_without_words_has_a_perplexity_too(perplexity: Perplexity) -> None:
    outcome = perplexity([*corpus(), document("empty", "other.example", "")])
    assert outcome.values()["empty"] > 0


def test_neither_model_nor_reference_is_an_error(perplexity: Perplexity) -> None:
    with pytest.raises(ParamsError, match="neither"):
        perplexity(corpus(), params=Params())


def test_a_model_that_is_none_is_an_error(perplexity: Perplexity, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.arpa"):
        perplexity(corpus(), params=Params(model="missing.arpa"))
    (tmp_path / "broken.arpa").write_text("this is no model\n")
    with pytest.raises(InputError, match="KenLM cannot read"):
        perplexity(corpus(), params=Params(model="broken.arpa"))
    with pytest.raises(InputError, match="no_such"):
        perplexity(corpus(), params=SMALL.model_copy(update={"reference": Reference(files=("no_such.txt",))}))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="head_percentile"):
        Params(head_percentile=70)
    with pytest.raises(ValidationError, match="prune"):
        Params(prune=(1, 0))
    with pytest.raises(ValidationError):
        Params.model_validate({"keep": ["best"]})
