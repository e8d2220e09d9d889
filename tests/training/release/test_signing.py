"""A release's signature: what it holds for, what breaks it, which keys are refused and with which words."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import InputError, ParamsError, UsageError
from tests.mutations import KINDS, mutate
from tests.training.release.test_verify import build_release, edit, rehash
from training.champions import champions, kept_copy
from training.release import verify
from training.release.signing import (
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    check_public_key,
    configured_key,
    differences,
    find_signature,
    open_key,
    sign_release,
    signed_files,
    signer_of,
)
from training.release.stage import Params

PASSWORD = "correct horse"


def write_key(path: Path, key: object = None, password: str | None = None) -> tuple[Path, Path]:
    """Write a private key and its public half; return both paths."""
    private: object = key or ec.generate_private_key(ec.SECP256R1())
    assert isinstance(private, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey))
    locked: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        locked = serialization.BestAvailableEncryption(password.encode())
    kind = serialization.PrivateFormat.PKCS8
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, kind, locked))
    public = path.with_suffix(".pub")
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, subject))
    return path, public


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that is signed, with a key pair and another one beside it."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        build_release(root)
    private, _ = write_key(root / "key.pem")
    write_key(root / "other.pem")
    assert sign_release(root / "release", open_key(str(private), "a test"))
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "release", tmp_path / "release")


@pytest.fixture(autouse=True)
def _no_key_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def breaks(made: Path, folder: Path, key: str = "key.pub") -> list[tuple[str, str]]:
    found = differences(folder, folder / "model.sig", made / key)
    return [(one.where, one.found) for one in found]


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_signed_release_is_as_it_was_signed_and_every_other_claim_still_holds(made: Path, folder: Path) -> None:
    assert breaks(made, folder) == []
    results = {one.claim: one for one in verify.check_release(folder)}
    assert "fail" not in {one.verdict for one in results.values()}
    assert results["signature"].verdict == "not checkable here"
    assert "a signature stands here" in results["signature"].why
    assert "-----" not in (folder / "model.sig").read_text()


def test_the_signature_is_over_every_file_and_these_alone(folder: Path) -> None:
    signed = signed_files(folder / "model.sig")
    names = [path for path in folder.rglob("*") if path.is_file() and path.name != "model.sig"]
    assert signed == {path.relative_to(folder).as_posix(): sha256_file(path) for path in names}


@pytest.mark.parametrize("seed", range(24))
def test_every_kind_of_change_is_found(made: Path, folder: Path, tmp_path: Path, seed: int) -> None:
    signature = tmp_path / "model.sig"
    shutil.move(folder / "model.sig", signature)
    done = mutate(folder, random.Random(seed), kind=KINDS[seed % len(KINDS)])
    assert list(differences(folder, signature, made / "key.pub")), done


def test_what_was_changed_is_named(made: Path, folder: Path) -> None:
    replace(folder / "config.json", b"{}")
    (folder / "extra.txt").write_text("x")
    (folder / ".gitattributes").write_text("x")
    (folder / "gate.json").unlink()
    swapped = [folder / "manifests" / name for name in ("crawl.json", "mix.json")]
    contents = [path.read_bytes() for path in swapped]
    for path, content in zip(swapped, reversed(contents), strict=True):
        replace(path, content)
    assert breaks(made, folder) == [
        (".gitattributes", "added"),
        ("config.json, SHA-256", sha256_file(folder / "config.json")),
        ("extra.txt", "added"),
        ("gate.json", "missing"),
        ("manifests/crawl.json, SHA-256", sha256_file(swapped[0])),
        ("manifests/mix.json, SHA-256", sha256_file(swapped[1])),
    ]


def test_a_forgery_whose_chain_is_whole_again_is_found(made: Path, folder: Path) -> None:
    edit(folder / "manifests/crawl.json", lambda value: value["params"].update(source="elsewhere"))
    replace(folder / "README.md", b"another card")
    rehash(folder)
    assert breaks(made, folder)[0] == ("_manifest.json, SHA-256", sha256_file(folder / "_manifest.json"))


def test_a_git_file_that_was_added_is_found_also_when_nothing_else_is(made: Path, folder: Path) -> None:
    (folder / ".gitignore").write_text("x")
    assert breaks(made, folder) == [(".gitignore", "added")]


def test_a_link_in_place_of_a_file_is_found(made: Path, folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "gate.json", tmp_path / "gate.json")
    (folder / "gate.json").symlink_to(tmp_path / "gate.json")
    assert "symlink" in breaks(made, folder)[0][1]


def test_a_takedown_mark_that_comes_later_changes_nothing(made: Path, folder: Path) -> None:
    (folder / "TAKEDOWN.md").write_text("gone")
    (folder / "takedown.json").write_text("{}")
    assert breaks(made, folder) == []
    assert verify.main([str(folder)]) == 0
    (folder / "manifests" / "TAKEDOWN.md").write_text("elsewhere")
    assert breaks(made, folder) == [("manifests/TAKEDOWN.md", "added")]


def test_only_the_one_name_may_be_added(folder: Path) -> None:
    shutil.copyfile(folder / "model.sig", folder / "manifests" / "model.sig")
    shutil.copyfile(folder / "model.sig", folder / "model.sig.bak")
    names = next(one for one in verify.check_release(folder) if one.claim == "names")
    assert [one.where for one in names.breaks] == ["manifests/model.sig", "model.sig.bak"]


def test_another_key_is_told_apart(made: Path, folder: Path) -> None:
    found = breaks(made, folder, "other.pub")
    assert found == [(f"{folder / 'model.sig'}, key", f"made with the key {signer_of(folder / 'model.sig')}")]


def test_a_signature_that_claims_a_key_which_did_not_make_it_is_found(made: Path, folder: Path) -> None:
    text = (folder / "model.sig").read_text()
    sign_release(folder, open_key(str(made / "other.pem"), "a test"))
    other = (folder / "model.sig").read_text()
    forged = json.loads(other)
    forged["verificationMaterial"] = json.loads(text)["verificationMaterial"]
    (folder / "model.sig").write_text(json.dumps(forged))
    assert breaks(made, folder) == [(str(folder / "model.sig"), "one that this key did not make")]


def test_a_signature_without_the_name_of_a_key_is_still_checked(
    made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = json.loads((folder / "model.sig").read_text())
    del nameless["verificationMaterial"]["publicKey"]["hint"]
    (folder / "model.sig").write_text(json.dumps(nameless))
    assert breaks(made, folder) == []
    assert len(breaks(made, folder, "other.pub")) == 1
    assert capsys.readouterr().out == "", "what is printed may be JSON"


def test_the_signature_of_another_release_is_found(made: Path, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    edit(other / "lineage.json", lambda value: value["params"].update(license="mit"))
    edit(other / "_manifest.json", lambda value: value["params"].update(license="mit"))
    rehash(other)
    (other / "model.sig").unlink()
    assert sign_release(other, open_key(str(made / "key.pem"), "a test"))
    assert breaks(made, other) == []
    shutil.copyfile(other / "model.sig", folder / "model.sig")
    assert breaks(made, folder)[0] == ("_manifest.json, SHA-256", sha256_file(folder / "_manifest.json"))


def test_a_signature_that_leaves_files_out_is_no_signature_of_the_folder(made: Path, folder: Path) -> None:
    from model_signing import hashing, signing

    config = signing.Config().use_elliptic_key_signer(private_key=made / "key.pem")
    few = hashing.Config().set_ignored_paths(paths=["model.safetensors", "model.sig"], ignore_git_paths=False)
    config.set_hashing_config(few).sign(folder, folder / "model.sig")
    assert breaks(made, folder) == [("model.safetensors", "one that the signature leaves out")]


@pytest.mark.parametrize("content", ["", "{}", "[]", "nonsense", '{"verificationMaterial": 1}', "\x00\xff"])
def test_a_file_that_is_no_signature_is_found(made: Path, folder: Path, content: str) -> None:
    (folder / "model.sig").write_text(content)
    assert len(breaks(made, folder)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_signature_never_stops_the_check(made: Path, folder: Path, tmp_path: Path, seed: int) -> None:
    (tmp_path / "alone").mkdir()
    shutil.move(folder / "model.sig", tmp_path / "alone")
    mutate(tmp_path / "alone", random.Random(seed), kind=("bit flip", "truncation")[seed % 2])
    shutil.copy(tmp_path / "alone" / "model.sig", folder)
    breaks(made, folder)


def test_the_librarys_own_program_accepts_it_and_finds_what_ours_finds(made: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig"), "--public_key", str(made / "key.pub")]
    (folder / "TAKEDOWN.md").write_text("gone")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "succeeded" in done.stdout) == (0, True), done.stderr
    replace(folder / "config.json", b"{}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "config.json" in done.stderr) == (1, True)


def test_what_is_signed_already_is_left_unless_by_another_key_or_for_other_files(made: Path, folder: Path) -> None:
    key, before = open_key(str(made / "key.pem"), "a test"), (folder / "model.sig").read_bytes()
    assert not sign_release(folder, key)
    assert (folder / "model.sig").read_bytes() == before
    assert sign_release(folder, open_key(str(made / "other.pem"), "a test"))
    assert sign_release(folder, key)
    (folder / "model.sig").write_text("nonsense")
    assert sign_release(folder, key)
    assert breaks(made, folder) == []


def test_a_folder_that_is_not_what_its_manifest_says_is_not_signed(made: Path, folder: Path) -> None:
    (folder / "model.sig").unlink()
    key = open_key(str(made / "key.pem"), "a test")
    (folder / "extra.txt").write_text("x")
    with pytest.raises(InputError, match=r"extra\.txt: added"):
        sign_release(folder, key)
    (folder / "extra.txt").unlink()
    replace(folder / "config.json", b"{}")
    with pytest.raises(InputError, match=r"config\.json, SHA-256"):
        sign_release(folder, key)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: missing"):
        sign_release(folder, key)
    (folder / "config.json").symlink_to("gate.json")
    with pytest.raises(InputError, match="symlink"):
        sign_release(folder, key)
    assert not [path.name for path in folder.iterdir() if path.name.startswith((".model", "model.sig"))]


def test_an_encrypted_key_is_opened_by_the_password_of_the_environment(
    made: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_key(tmp_path / "locked.pem", password=PASSWORD)
    monkeypatch.setenv(KEY_VARIABLE, str(private))
    with pytest.raises(ParamsError, match=f"(?s)encrypted.*set {PASSWORD_VARIABLE}"):
        configured_key(None)
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong battery")
    with pytest.raises(ParamsError, match="does not open with the password") as raised:
        configured_key(None)
    assert "wrong battery" not in str(raised.value)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    key = configured_key(None)
    assert key is not None
    assert PASSWORD not in repr(key)
    assert sign_release(folder, key)
    assert list(differences(folder, folder / "model.sig", public)) == []
    monkeypatch.setenv(KEY_VARIABLE, str(made / "key.pem"))
    assert configured_key(None), "a password that is not needed does no harm"


def test_the_environment_wins_over_the_setting_and_none_is_none(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert configured_key(None) is None
    key = configured_key(str(made / "key.pem"))
    assert key is not None
    assert key.path == made / "key.pem"
    monkeypatch.setenv(KEY_VARIABLE, str(made / "other.pem"))
    key = configured_key(str(tmp_path / "nowhere.pem"))
    assert key is not None
    assert key.path == made / "other.pem"


def rsa_key(path: Path) -> str:
    return str(write_key(path, rsa.generate_private_key(65537, 2048))[0])


def ed25519_key(path: Path) -> str:
    return str(write_key(path, ed25519.Ed25519PrivateKey.generate())[0])


def other_curve(path: Path) -> str:
    return str(write_key(path, ec.generate_private_key(ec.SECP256K1()))[0])


def public_half(path: Path) -> str:
    return str(write_key(path)[1])


def no_pem(path: Path) -> str:
    path.write_text("c2VjcmV0")
    return str(path)


def cut_off(path: Path) -> str:
    content = write_key(path)[0].read_bytes()
    path.write_bytes(content[:60] + content[80:])
    return str(path)


def nothing(path: Path) -> str:
    return str(path)


def a_folder(path: Path) -> str:
    path.mkdir()
    return str(path)


def the_key_itself(path: Path) -> str:
    return write_key(path)[0].read_text()


WRONG_KEYS: dict[Callable[[Path], str], str] = {
    rsa_key: "RSA",
    ed25519_key: "Ed25519",
    other_curve: "secp256k1",
    public_half: "found: a public key",
    no_pem: "found: no PEM",
    cut_off: "cannot be read",
    nothing: "No such file",
    a_folder: "Is a directory",
    the_key_itself: "the path of a PEM file",
}


@pytest.mark.parametrize("wrong", WRONG_KEYS, ids=lambda wrong: wrong.__name__)
def test_a_key_that_cannot_be_used_says_why_and_what_to_do_and_never_itself(
    wrong: Callable[[Path], str], tmp_path: Path
) -> None:
    given = wrong(tmp_path / "wrong.pem")
    with pytest.raises(ParamsError) as raised:
        configured_key(given)
    said = str(raised.value)
    assert WRONG_KEYS[wrong] in said
    assert "release.signing_key in params.yaml" in said
    assert "do: " in said
    assert "PEM" in said
    content = (tmp_path / "wrong.pem").read_text() if (tmp_path / "wrong.pem").is_file() else ""
    assert not [line for line in content.splitlines() if len(line) > 5 and line in said]


def test_openssls_other_layout_of_a_key_is_taken(tmp_path: Path, made: Path, folder: Path) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    layout = serialization.PrivateFormat.TraditionalOpenSSL
    pem = private.private_bytes(serialization.Encoding.PEM, layout, serialization.NoEncryption())
    # What `openssl ecparam -genkey` writes first.
    parameters = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"
    (tmp_path / "key.pem").write_bytes(parameters + pem)
    key = open_key(str(tmp_path / "key.pem"), "a test")
    (tmp_path / "key.pub").write_bytes(key.public_pem)
    assert sign_release(folder, key)
    assert list(differences(folder, folder / "model.sig", tmp_path / "key.pub")) == []


def test_only_a_public_key_is_taken_to_check_with(made: Path, tmp_path: Path) -> None:
    check_public_key(made / "key.pub")
    wrong: list[tuple[Path, str]] = [
        (made / "key.pem", "a private key"),
        (tmp_path / "nowhere", "No such file"),
        (write_key(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))[1], "RSA"),
        (Path(no_pem(tmp_path / "text")), "no PEM"),
    ]
    for path, said in wrong:
        with pytest.raises(UsageError, match=said):
            check_public_key(path)


def test_a_signature_is_found_in_the_folder_or_in_the_kept_copy(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    release = build_release(tmp_path)
    assert find_signature(release) is None
    kept = kept_copy(sha256_file(release / "_manifest.json"))
    assert kept == champions()[-1].path
    assert kept is not None
    assert sign_release(kept, open_key(str(made / "key.pem"), "a test"))
    assert find_signature(release) == kept / "model.sig"
    assert list(differences(release, kept / "model.sig", made / "key.pub")) == []
    assert not (release / "model.sig").exists()
    shutil.copy(kept / "model.sig", release)
    assert find_signature(release) == release / "model.sig"


def test_a_key_changes_no_byte_of_a_release() -> None:
    assert Params(signing_key="key.pem").identity() == Params().identity()
    assert "signing_key" not in Params(signing_key="key.pem").identity()


def test_a_key_that_vanished_after_it_was_opened_leaves_no_half_signature(folder: Path, tmp_path: Path) -> None:
    (folder / "model.sig").unlink()
    private, _ = write_key(tmp_path / "key.pem")
    key = open_key(str(private), "a test")
    private.unlink()
    with pytest.raises(ParamsError, match="not what it was"):
        sign_release(folder, key)
    assert not (folder / "model.sig").exists()
