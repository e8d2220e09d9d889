import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tasks.contracts.base_release import STARTED_FROM, copy_lineage, read_base
from tasks.contracts.document import write_documents
from tasks.contracts.durable_files import sha256_file, write_json
from tasks.contracts.manifest import Counts, Unit
from tasks.contracts.release import BASE_FOLDER
from tasks.tokenizer.byte_level import save_tokenizer
from tests.mutations import mutate
from tests.planted import plant_manifest
from tests.training.release.papers.chain import STAGES, TEXT_STAGES, Figures, documents, write_texts
from training.gate_policy import Policy, policy_sha256
from training.release import stage as release
from training.release import verify
from training.train.model import (
    ModelSize,
    build_model,
    model_config,
    name_special_tokens,
    save_model,
    weights_sha256,
)

TASKS = ["heldout_bits_per_byte"]


def build_release(root: Path, base: Path | None = None, tokenizer: Tokenizer | None = None, seq_len: int = 16) -> Path:
    """Make a small release by the functions that make real ones.

    Args:
        base: a release that it goes on from.
        tokenizer: that of the model, which has none when it is left out.
    """
    folders = {stage: root / "data" / stage for stage in STAGES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    numbers = Figures(101)
    write_texts(folders, numbers)
    for stage in TEXT_STAGES[1:-1]:
        for part, shard in enumerate(documents()):
            write_documents(folders[stage] / f"part-{part:05d}.parquet", shard)
    write_json(folders["crawl"] / "sources.json", {"source": "sites", "sources": []})
    write_json(folders["mix"] / "mixture.json", {"groups": [numbers.group("main")]})
    protected: dict[str, Any] = {"tasks": TASKS, "benchmarks": {}, "protected_texts": 3}
    write_json(folders["decontaminate"] / "protected.json", protected)
    size = ModelSize(layers=1, hidden_size=16, heads=2, kv_heads=1)
    vocabulary = 50 if tokenizer is None else tokenizer.get_vocab_size()
    config = model_config(size, vocab_size=vocabulary, seq_len=seq_len, eos_id=0)
    weights = dict(build_model(config, seed=1).named_parameters())
    save_model(folders["train"] / "model", config, weights)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folders["train"] / "model")
        name_special_tokens(folders["train"] / "model")
    figures = {"parameters": 12345, "tokens_seen": 678, "steps": 9, "train_loss": 3.25, "validation_loss": 3.5}
    wrote = weights_sha256(weights.items())
    write_json(folders["train"] / "metrics.json", {**figures, "weights_sha256": wrote})
    items = [{"item_id": f"item-{number}", "doc_id": None, "acc": float(number % 2)} for number in range(4)]
    scored: dict[str, Any] = {"heldout": {"acc": 0.5, "items": 4, "items_sha256": "x"}}
    write_json(folders["evaluate"] / "results.json", {"tasks": scored, "settings": {}})
    (folders["evaluate"] / "samples").mkdir()
    (folders["evaluate"] / "samples/heldout.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    fixed = policy_sha256(Policy(), TASKS)
    report = numbers.report(0.5) | {"weights_sha256": wrote, "policy_sha256": fixed}
    write_json(folders["gate"] / "report.json", report)
    before: dict[str, Path] = {}
    policy = Policy().identity()
    settings: dict[str, dict[str, Any]] = {
        "train": {"policy": policy, "tasks": TASKS, "policy_sha256": fixed, "seq_len": seq_len}
        | {"strategy": "zero-3", "num_ranks": 1},
        "gate": {**policy, "tasks": TASKS},
    }
    if base is not None:
        settings["train"][STARTED_FROM] = read_base(base).model_dump(mode="json")
        copy_lineage(base, folders["train"] / BASE_FOLDER)
    for stage, folder in folders.items():
        counts = Counts(in_=5, out=3, dropped={"too_short": 2}) if stage == "extract" else Counts(in_=3, out=3)
        unit: Unit = "documents" if stage in (*TEXT_STAGES, "tokenize") else "files"
        plant_manifest(
            folder,
            stage=stage,
            unit=unit,
            params=settings.get(stage, {}),
            inputs=before,
            counts=counts,
        )
        before = {stage: folder}
    release.run(params=release.Params(), inputs=folders, output=root / "release")
    return root / "release"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        return build_release(root)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "release")


@pytest.fixture(scope="module")
def twice_continued(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that goes on from one that goes on from another."""
    root = tmp_path_factory.mktemp("continued")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        return build_release(root / "two", build_release(root / "one", made))


def test_the_chain_goes_through_the_releases_that_training_went_on_from(
    twice_continued: Path, made: Path, tmp_path: Path
) -> None:
    expected = dict.fromkeys(verify.CLAIMS, "pass") | {"signature": "not checkable here"}
    expected["published"] = "not checkable here"
    assert verdicts(twice_continued) == expected
    names = [path.relative_to(twice_continued).as_posix() for path in sorted(twice_continued.rglob("base/*.json"))]
    assert "base/base/_manifest.json" in names
    assert (twice_continued / "base/base/_manifest.json").read_bytes() == (made / "_manifest.json").read_bytes()
    card = (twice_continued / "README.md").read_text()
    assert "random weights" not in card
    assert f"weights of headwater-sample (release {sha256_file(twice_continued / 'base/_manifest.json')})" in card


def test_no_file_of_a_base_can_be_changed_taken_away_or_added(twice_continued: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(twice_continued, tmp_path / "release")
    files = [path for path in sorted((folder / "base").rglob("*")) if path.is_file()]
    assert len(files) > 2 * len(STAGES)

    def broken() -> bool:
        """Whether a claim fails that does not ask the release's own list of files, which a forger writes anew."""
        told = verdicts(folder)
        return "fail" in (told["chain"], told["copies"])

    for path in files:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1", b"2", 1) if b"1" in content else content + b" ")
        assert broken(), path
        path.unlink()
        assert broken(), path
        path.write_bytes(content)
    assert not broken()
    (folder / "base/more.json").write_text("{}")
    assert broken()


def test_a_base_that_no_training_went_on_from_is_refused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "release")
    copy_lineage(made, folder / BASE_FOLDER)
    assert verdicts(folder)["chain"] == "fail"


def verdicts(folder: Path, expect: str | None = None) -> dict[str, str]:
    return {result.claim: result.verdict for result in verify.check_release(folder, expect)}


def test_an_untouched_release_passes_every_claim(folder: Path) -> None:
    expect = sha256_file(folder / "_manifest.json")
    assert verdicts(folder, expect) == dict.fromkeys(verify.CLAIMS, "pass") | {"signature": "not checkable here"}


def test_it_runs_from_the_folder_alone_without_any_package_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    command = [sys.executable, "-I", "-S", "verify.py", "--json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["verdict"] == "pass"
    assert told["manifest_sha256"] == sha256_file(folder / "_manifest.json")
    assert sorted(folder.rglob("*")) == before
    assert told["folder"] == str(folder)
    # From elsewhere it looks where it is called, so it says where that is, and how to name another folder.
    command[3] = str(folder / "verify.py")
    away = subprocess.run(command[:-1], cwd=folder.parent, capture_output=True, text=True, check=False)
    assert away.returncode == 1
    assert away.stdout.startswith(f"checked: {folder.parent}\n")
    assert away.stdout.endswith(
        f"no release stands in {folder.parent}: to check another folder, name it behind the command\n"
    )
    named = subprocess.run([*command[:-1], folder.name], cwd=folder.parent, capture_output=True, text=True, check=False)
    assert named.returncode == 0
    wrong = subprocess.run([*command[:-1], "nowhere"], cwd=folder, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "nowhere" in wrong.stderr


def test_the_first_broken_link_is_named_with_expected_and_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {s["name"]: s for s in json.loads((folder / "_manifest.json").read_text())["shards"]}
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert verify.main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert "the first broken link is model.safetensors, SHA-256" in said
    assert f"expected: {listed['model.safetensors']['sha256']}" in said
    assert f"found: {sha256_file(folder / 'model.safetensors')}" in said


def test_a_takedown_mark_is_no_addition_but_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "TAKEDOWN.md").write_text("gone")
    (folder / "takedown.json").write_text("{}")
    assert verify.main([str(folder)]) == 0
    assert "see TAKEDOWN.md, takedown.json" in capsys.readouterr().out
    (folder / "manifests" / "TAKEDOWN.md").write_text("elsewhere")
    assert verdicts(folder)["names"] == "fail"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    write_json(path, value)


def rehash(folder: Path) -> None:
    """Do what a forger would: name all hashes anew in the release's manifest and in lineage.json."""
    stages = {path.stem: sha256_file(path) for path in (folder / "manifests").iterdir()}

    def of_lineage(value: Any) -> None:
        for stage, about in value["stages"].items():
            about["manifest_sha256"] = stages[stage]

    def of_manifest(value: Any) -> None:
        value["inputs"] = stages
        for entry in value["shards"]:
            entry["sha256"] = sha256_file(folder / entry["name"])
            entry["bytes"] = (folder / entry["name"]).stat().st_size

    edit(folder / "lineage.json", of_lineage)
    edit(folder / "_manifest.json", of_manifest)


def shape(value: Any) -> None:
    value["schema_version"] = 2


def lose_rows(value: Any) -> None:
    value["counts"]["out"] += 1


def lower_margin(value: Any) -> None:
    value["policy"]["floor_margin"] = -9.0


FORGERIES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "form": ("_manifest.json", shape),
    "settings": ("_manifest.json", lambda value: value["params"].update(license="mit")),
    "chain": ("manifests/crawl.json", lambda value: value["params"].update(source="elsewhere")),
    "conservation": ("manifests/gate.json", lose_rows),
    "copies": ("gate.json", lambda value: value.update(confidence=0.5)),
    "weights": ("lineage.json", lambda value: value.update(weights_sha256="0" * 64)),
    "gate": ("gate.json", lambda value: value["rules"][0].update(verdict="fail")),
    "policy": ("manifests/train.json", lambda value: lower_margin(value["params"])),
}


@pytest.mark.parametrize("claim", FORGERIES)
def test_a_forgery_with_all_hashes_named_anew_is_still_found(folder: Path, claim: str) -> None:
    name, change = FORGERIES[claim]
    edit(folder / name, change)
    rehash(folder)
    assert verdicts(folder)[claim] == "fail"


def test_rows_lost_between_two_stages_are_found(folder: Path) -> None:
    edit(folder / "manifests/dedup.json", lambda value: value["counts"].update({"in": 2, "out": 2}))
    rehash(folder)
    breaks = next(r for r in verify.check_release(folder) if r.claim == "conservation").breaks
    assert [one.where for one in breaks] == [
        "dedup, out against the rows of its files",
        "documents out of filter and into dedup",
        "documents out of dedup and into perplexity",
    ]


def test_an_improved_figure_is_found_by_its_items(folder: Path) -> None:
    edit(folder / "evaluation/results.json", lambda value: value["tasks"]["heldout"].update(acc=0.9))
    digest = sha256_file(folder / "evaluation/results.json")

    def of_stage(value: Any) -> None:
        next(s for s in value["shards"] if s["name"] == "results.json").update(sha256=digest)

    edit(folder / "manifests/evaluate.json", of_stage)
    rehash(folder)
    assert verdicts(folder)["copies"] == "pass"
    breaks = next(r for r in verify.check_release(folder) if r.claim == "scores").breaks
    assert [(one.where, one.found) for one in breaks] == [("evaluation/results.json, heldout, acc", "0.9")]


@pytest.mark.parametrize(
    ("change", "right"),
    [({}, True), ({"by": 0.2}, False), ({"verdict": "fail"}, False), ({"low": 0.45, "by": 0.2}, False)],
)
def test_a_rule_of_the_gate_follows_from_its_own_figures(folder: Path, change: dict[str, Any], right: bool) -> None:
    rule = {"rule": "chance", "value": 0.4, "low": 0.3, "high": 0.5, "bound": "low", "threshold": 0.25, "by": 0.05}
    edit(folder / "gate.json", lambda value: value.update(rules=[{**rule, "verdict": "pass", **change}]))
    assert verdicts(folder)["scores"] == ("pass" if right else "fail")


def test_a_stage_that_is_new_is_held_to_what_the_one_before_put_out(folder: Path) -> None:
    mix = json.loads((folder / "manifests/mix.json").read_bytes())
    decontaminate = sha256_file(folder / "manifests/decontaminate.json")
    write_json(
        folder / "manifests/polish.json",
        {**mix, "stage": "polish", "inputs": {"decontaminate": decontaminate}, "counts": {"in": 2, "out": 2}},
    )
    stages = {path.stem: json.loads(path.read_bytes()) for path in (folder / "manifests").iterdir()}
    stages["mix"]["inputs"] = {"polish": "x"}
    found = [one.where for stage in ("polish", "mix") for one in verify.handed_over(stage, stages)]
    assert found == ["documents out of decontaminate and into polish", "documents out of polish and into mix"]


def test_a_chain_that_does_not_reach_the_crawl_is_found(folder: Path) -> None:
    edit(folder / "manifests/mix.json", lambda value: value.update(inputs={}))
    edit(folder / "lineage.json", lambda value: value["stages"]["mix"].update(inputs={}))
    rehash(folder)
    breaks = next(r for r in verify.check_release(folder) if r.claim == "chain").breaks
    assert ("manifests/", "a chain from the gate to the crawl") in {(one.where, one.expected) for one in breaks}


def test_another_release_than_the_published_one_is_found(folder: Path) -> None:
    assert verdicts(folder, "0" * 64)["published"] == "fail"


def test_files_added_and_missing_and_changed_are_told_apart(folder: Path) -> None:
    (folder / "extra.txt").write_text("x")
    (folder / "config.json").unlink()
    names = next(r for r in verify.check_release(folder) if r.claim == "names").breaks
    assert [(one.where, one.found) for one in names] == [("config.json", "missing"), ("extra.txt", "added")]
    assert verdicts(folder)["contents"] == "fail"


def test_a_release_without_the_policy_says_what_cannot_be_checked(folder: Path) -> None:
    edit(folder / "manifests/train.json", lambda value: value["params"].pop("policy"))
    result = next(r for r in verify.check_release(folder) if r.claim == "policy")
    assert (result.verdict, "does not hold the policy" in result.why) == ("not checkable here", True)


@pytest.mark.parametrize("seed", range(150))
def test_every_single_mutation_is_found(made: Path, tmp_path: Path, seed: int) -> None:
    folder = shutil.copytree(made, tmp_path / "release")
    done = mutate(folder, random.Random(seed))
    assert "fail" in verdicts(folder).values(), done


@pytest.mark.parametrize("seed", range(60))
def test_every_single_mutation_of_the_manifest_itself_is_found(made: Path, tmp_path: Path, seed: int) -> None:
    folder = shutil.copytree(made, tmp_path / "release")
    done = mutate(folder, random.Random(seed), only="_manifest.json")
    assert "fail" in verdicts(folder).values(), done
