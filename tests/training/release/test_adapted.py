"""An adapted release: its chain goes on in its base's, however often a release was adapted, and a forgery breaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.chats import to_text
from tasks.contracts.document import write_documents
from tasks.contracts.durable_files import write_json
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts, Unit, manifest_hash, read_manifest
from tests.corpus import document
from tests.planted import plant_manifest
from tests.training.release.test_release_use import make_release
from training.adapt.tuning_settings import Params as AdaptParams
from training.release import stage as release
from training.release.verify import check_release

CLAIMS = ("form", "names", "contents", "settings", "chain", "conservation", "copies")
"""What a chain that was planted by hand fulfils."""
UNITS: dict[str, Unit] = {"evaluate": "items", "gate": "rules"}


def adapt(root: Path, base: Path) -> Path:
    """Make an adapted release of a base whose stages' folders stand in `base`'s neighbourhood, by planted stages."""
    data = base.parent / "data"
    known = {name: data / name for name in ("holdout", "mix")} | {"base": base}
    reads = {
        "examples": (),
        "filter": ("examples",),
        "decontaminate": ("filter", "base"),
        "adapt": ("decontaminate", "base"),
        "evaluate": ("adapt", "holdout"),
        "gate": ("evaluate", "adapt", "holdout", "mix", "decontaminate"),
    }
    folders = {name: root / "data" / name for name in reads}
    example = document(to_text([("user", "a?"), ("assistant", "A")]), name="1")
    for name, read in reads.items():
        folder = folders[name]
        folder.mkdir(parents=True)
        text, params = name in ("examples", "filter", "decontaminate"), dict[str, Any]()
        dropped = {"no_answer": 1} if name == "examples" else {}
        if text:
            write_documents(folder / "part-00000.parquet", [example])
            rows = [LedgerRow(stage=name, action="drop", rule=rule, doc_id="x") for rule in dropped]
            write_ledger(folder / "dropped" / "part-00000.parquet", rows)
        if name == "examples":
            params = {"files": {"chats.jsonl": "0" * 64}}
        if name == "adapt":
            params = AdaptParams().in_manifest()
            shutil.copytree(
                base,
                folder / "model",
                ignore=shutil.ignore_patterns(
                    "_*", "*.md", "manifests", "evaluation", "base", "tasks", "lineage.json", "gate.json"
                ),
            )
            write_json(folder / "metrics.json", {"weights_sha256": "w2", "steps": 3, "train_loss": 1.5})
        if name == "evaluate":
            write_json(folder / "results.json", {"tasks": {}, "settings": {}})
        if name == "gate":
            shutil.copyfile(base / "gate.json", folder / "report.json")
        counts = Counts(in_=1 + sum(dropped.values()), out=1, dropped=dropped)
        inputs = {one: folders.get(one) or known[one] for one in read}
        plant_manifest(
            folder, stage=name, unit=UNITS.get(name, "documents"), params=params, inputs=inputs, counts=counts
        )
    release.run(params=release.Params(name="adapted"), inputs={**folders, "base": base}, output=root / "release")
    shutil.copytree(data, root / "data", dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n in reads])
    return root / "release"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A release, the one that was adapted from it, and the one that was adapted from that."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("releases")
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        base = make_release(root / "one")
        once = adapt(root / "two", base)
        return base, once, adapt(root / "three", once)


def broken(folder: Path) -> set[tuple[str, str]]:
    """Return what breaks, by claim, but for the figures of the base's stages, which were planted by hand."""
    found = {(one.claim, str(each)) for one in check_release(folder) if one.claim in CLAIMS for each in one.breaks}
    return {one for one in found if one[0] != "conservation"}


def test_the_chain_goes_on_through_every_base(made: tuple[Path, Path, Path]) -> None:
    base, *adapted = made
    assert {claim for claim, _ in broken(base)} <= {"copies"}  # its model was not made by its stage
    for folder in adapted:
        assert broken(folder) == set()
    twice = adapted[1]
    assert manifest_hash(twice / "base") == manifest_hash(adapted[0])
    assert manifest_hash(twice / "base" / "base") == manifest_hash(base)
    assert not list((twice / "base").rglob("*.safetensors")), "of a base all but its weights"


def test_the_card_says_from_what_and_on_what_it_was_tuned(made: tuple[Path, Path, Path]) -> None:
    base, once, _ = made
    card = (once / "README.md").read_text()
    assert f"Fine-tuned from {read_manifest(base).params['name']} (manifest `{manifest_hash(base)}`)" in card
    assert f"| chats.jsonl | `{'0' * 64}` |" in card
    assert "| examples | `no_answer` | 1 |" in card


def touch(path: Path) -> None:
    described = json.loads(path.read_bytes())
    write_json(path, described | {"params": {**described["params"], "more": 1}})


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a paper of the base": (lambda folder: (folder / "base/README.md").write_text("nothing was read"), "copies"),
    "a manifest of the base": (lambda folder: touch(folder / "base/manifests/filter.json"), "chain"),
    "the base's own manifest": (lambda folder: touch(folder / "base/_manifest.json"), "chain"),
    "a manifest of the base's base": (lambda folder: touch(folder / "base/base/manifests/extract.json"), "chain"),
    "an own manifest": (lambda folder: touch(folder / "manifests/examples.json"), "chain"),
    "no base": (lambda folder: shutil.rmtree(folder / "base"), "chain"),
    "other weights": (lambda folder: (folder / "more.safetensors").write_bytes(b"x"), "copies"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_breaks_more_than_a_hash(made: tuple[Path, Path, Path], tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(made[2], tmp_path / "release")
    hurt, claim = FORGERIES[name]
    before = broken(folder)
    hurt(folder)
    assert claim in {one for one, _ in broken(folder) - before}
