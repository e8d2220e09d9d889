"""Run records are append-only, chained, and found again by the manifest they made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.history import run_records
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import NetworkError, UsageError
from tasks.contracts.manifest import Counts
from tests.planted import plant_manifest


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / ".headwater"))
    return tmp_path


def finished(stage: str, content: str = "a") -> Path:
    output = Path("data") / stage
    output.mkdir(parents=True, exist_ok=True)
    (output / "part-00000.txt").write_text(content)
    counts = Counts(in_=2, out=1, dropped={"short": 1})
    plant_manifest(output, stage=stage, unit="documents", params={}, inputs={}, counts=counts)
    return output


def done(run: str, stage: str, content: str = "a") -> run_records.RunRecord:
    return run_records.write_record(run=run, stage=stage, started_at=run_records.now(), output=finished(stage, content))


def test_a_record_holds_what_a_manifest_may_not() -> None:
    record = done("r1", "crawl")
    assert record.versions["python"].startswith("3.")
    assert set(record.versions) - {"python"} <= set(run_records.LIBRARIES)
    assert record.machine.cpus >= 1
    assert record.machine.memory > 2**20
    assert record.manifest_sha256 == sha256_file(Path("data/crawl/_manifest.json"))
    assert run_records.kept_manifest(record.manifest_sha256).counts.dropped == {"short": 1}
    assert record.seconds >= 0


def test_a_failure_is_recorded_with_whether_it_may_pass() -> None:
    record = run_records.write_record(
        run="r1", stage="crawl", started_at=run_records.now(), error=NetworkError("no answer")
    )
    assert record.status == "failed"
    assert record.error == run_records.Failure(type="NetworkError", message="no answer", transient=True)
    assert record.manifest_sha256 is None


def test_a_retry_never_overwrites_the_first_attempt() -> None:
    run_records.write_record(run="r1", stage="crawl", started_at=run_records.now(), error=NetworkError("no answer"))
    done("r1", "crawl")
    assert [record.status for record in run_records.read_records("r1")] == ["failed", "done"]
    assert run_records.verify_chain() == []


def test_records_of_a_run_are_its_own_and_in_order() -> None:
    for run, stage in [("r1", "crawl"), ("r10", "crawl"), ("r1", "extract")]:
        done(run, stage)
    assert [record.stage for record in run_records.read_records("r1")] == ["crawl", "extract"]
    assert len(run_records.read_records()) == 3


def test_the_newest_record_that_made_a_manifest_is_found() -> None:
    first, second, other = done("r1", "crawl"), done("r2", "crawl"), done("r3", "crawl", "b")
    assert first.manifest_sha256 == second.manifest_sha256 != other.manifest_sha256
    assert second.manifest_sha256 is not None
    found = run_records.latest_record("crawl", second.manifest_sha256)
    assert found is not None
    assert found.run == "r2"
    assert run_records.latest_record("extract", second.manifest_sha256) is None


@pytest.mark.parametrize("harm", ["edit", "remove", "slip in", "reorder"])
def test_the_chain_shows_what_was_done_to_it(workspace: Path, harm: str) -> None:
    for run in ("r1", "r2", "r3"):
        done(run, "crawl")
    assert run_records.verify_chain() == []
    runs = workspace / ".headwater" / "runs"
    record = runs / "r2" / "crawl.json"
    if harm == "edit":
        record.write_text(record.read_text().replace('"done"', '"failed"'))
    elif harm == "remove":
        record.unlink()
    elif harm == "slip in":
        (runs / "r9").mkdir()
        (runs / "r9" / "crawl.json").write_bytes(record.read_bytes())
    else:
        lines = (runs / "chain.jsonl").read_text().splitlines()
        (runs / "chain.jsonl").write_text("\n".join([lines[1], lines[0], lines[2], ""]))
    assert run_records.verify_chain()


def test_half_a_line_left_by_a_crash_is_cut_off_and_the_chain_goes_on(workspace: Path) -> None:
    done("r1", "crawl")
    with (workspace / ".headwater/runs/chain.jsonl").open("a") as stream:
        stream.write('{"record": "r1/ex')
    done("r1", "extract")
    assert [record.stage for record in run_records.read_records()] == ["crawl", "extract"]
    assert run_records.verify_chain() == []


def test_a_run_cannot_write_outside_its_folder() -> None:
    with pytest.raises(UsageError, match="name"):
        done("../elsewhere", "crawl")


def test_the_record_names_no_host(workspace: Path) -> None:
    done("r1", "crawl")
    import socket

    text = json.dumps(json.loads((workspace / ".headwater/runs/r1/crawl.json").read_bytes()))
    assert socket.gethostname() not in text
