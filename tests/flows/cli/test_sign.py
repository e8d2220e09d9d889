"""Signing around a run, and the commands: a key never changes what is released, and a wrong one shows early."""

import json
import shutil
from pathlib import Path

import pytest

from flows.cli import main as cli
from flows.pipeline.signature import sign_if_not
from flows.pipeline.stage_run import run_stage
from flows.workspace.params import read_params, set_values, signing_key
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import ParamsError
from tests.conftest import ROOT
from tests.training.release.test_signing import write_key
from tests.training.release.test_verify import build_release
from training.champions import champions
from training.release.signing import KEY_VARIABLE, PUBLIC_KEY_VARIABLE, differences, open_key


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose stages before the release have run, with two key pairs."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        build_release(root)
    for name in ("state", "release"):
        shutil.rmtree(root / name)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    write_key(root / "key.pem")
    write_key(root / "other.pem")
    return root


@pytest.fixture
def here(finished: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, workspace, dirs_exist_ok=True)
    for name in (KEY_VARIABLE, PUBLIC_KEY_VARIABLE, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    # Nothing listens there, so no process with MLflow is started: one warning.
    monkeypatch.setenv("HEADWATER_MIRROR", str(workspace / "no mirror"))
    # The made up documents have names that no real ones have.
    monkeypatch.setattr("flows.pipeline.stage_run.remember_release", lambda *_: None)
    return workspace


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command of `headwater`; return its exit code and all it said."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def claim(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    _, said = command(capsys, "verify", "--json", *arguments)
    return next(one for one in json.loads(said)["claims"] if one["claim"] == "signature")


def test_a_run_signs_the_kept_copy_and_data_is_the_same_with_and_without_a_key(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("release")
    plain = hashes(Path("data/release"))
    kept = champions()[-1].path
    assert not (kept / "model.sig").exists()
    set_values(["release.signing_key=key.pem"])
    run_stage("release")
    assert hashes(Path("data/release")) == plain
    assert hashes(kept).keys() - plain.keys() == {"model.sig"}
    first = (kept / "model.sig").read_bytes()
    run_stage("release")
    assert (kept / "model.sig").read_bytes() == first, "a signature that holds is not made again"
    monkeypatch.setenv(KEY_VARIABLE, str(here / "other.pem"))
    run_stage("release")
    assert (kept / "model.sig").read_bytes() != first
    written = [p for p in (here / ".headwater").rglob("*") if p.is_file()]
    assert not [p for p in written if b"PRIVATE KEY" in p.read_bytes()]


def test_a_run_that_has_nothing_to_do_signs_what_is_not_signed_with_its_key(here: Path) -> None:
    run_stage("release")
    key, other = open_key("key.pem", "a test"), open_key("other.pem", "a test")
    assert sign_if_not(Path("data/release"), key)
    assert not sign_if_not(Path("data/release"), key)
    assert sign_if_not(Path("data/release"), other)
    assert list(differences(Path("data/release"), champions()[-1].path / "model.sig", Path("other.pub"))) == []
    shutil.rmtree(champions()[-1].path)
    assert not sign_if_not(Path("data/release"), key), "data/release itself is not touched"


def test_a_key_that_cannot_be_used_stops_the_release_before_it_begins(here: Path) -> None:
    run_stage("release")
    before = hashes(Path("data"))
    set_values(["release.signing_key=nowhere.pem"])
    with pytest.raises(ParamsError, match=r"nowhere\.pem"):
        run_stage("release")
    assert hashes(Path("data")) == before


def test_run_refuses_a_wrong_key_before_anything_starts_and_puts_params_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("params.yaml").read_bytes()
    code, said = command(capsys, "run", "--set", "release.signing_key=key.pub")
    assert (code, "found: a public key" in said) == (2, True)
    assert Path("params.yaml").read_bytes() == before
    assert signing_key(read_params()) is None


def test_sign_signs_what_is_made_already_by_name_hash_and_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command(capsys, "sign", "--key", "key.pem")
    assert (code, "there is no release yet" in said) == (2, True)
    run_stage("release")
    own, kept = champions()[-1].release, champions()[-1].path
    for name in ((), ("headwater-sample",), (own[:12],), ("data/release",)):
        code, said = command(capsys, "sign", *name, "--key", "key.pem", "--json")
        assert code == 0, said
        told = json.loads(said)
        assert (told["release"], told["signature"], told["made"]) == (own, str(kept / "model.sig"), name == ())
    assert not Path("data/release/model.sig").exists()
    code, said = command(capsys, "sign", "another", "--key", "key.pem")
    assert (code, "headwater-sample" in said) == (2, True)


def test_sign_without_a_key_says_where_one_may_be_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage("release")
    code, said = command(capsys, "sign")
    assert code == 2
    assert all(name in said for name in ("--key", KEY_VARIABLE, "release.signing_key"))


def test_sign_gives_a_copy_elsewhere_its_signature_in_its_own_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("release")
    shutil.copytree("data/release", "downloaded")
    assert command(capsys, "sign", "downloaded", "--key", "key.pem")[0] == 0
    assert Path("downloaded/model.sig").is_file()
    assert not (champions()[-1].path / "model.sig").exists()
    shutil.rmtree(".headwater")
    assert claim(capsys, "downloaded", "--public-key", "key.pub")["verdict"] == "pass"
    code, said = command(capsys, "sign", "--key", "key.pem")
    assert (code, "no copy of this release is kept here" in said) == (2, True)


def test_verify_says_what_a_signature_is_worth(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("release")
    unsigned = claim(capsys)
    assert (unsigned["verdict"], unsigned["why"]) == ("not checkable here", "no signature stands here")
    code, said = command(capsys, "verify", "--public-key", "key.pub")
    assert (code, "FAIL: the first broken link is data/release/model.sig" in said) == (1, True)
    assert command(capsys, "sign", "--key", "key.pem")[0] == 0
    known = claim(capsys)
    assert (known["verdict"], "--public-key" in str(known["why"])) == ("not checkable here", True)
    assert claim(capsys, "--public-key", "key.pub")["verdict"] == "pass"
    monkeypatch.setenv(PUBLIC_KEY_VARIABLE, "other.pub")
    other = claim(capsys)
    assert (other["verdict"], "made with the key" in str(other["breaks"])) == ("fail", True)
    monkeypatch.setenv(PUBLIC_KEY_VARIABLE, "key.pub")
    Path("data/release/config.json").unlink()
    Path("data/release/config.json").write_text("{}")
    changed = claim(capsys)
    assert (changed["verdict"], "config.json, SHA-256" in str(changed["breaks"])) == ("fail", True)
    code, said = command(capsys, "verify", "--public-key", "key.pem")
    assert (code, "a private key" in said) == (2, True)
