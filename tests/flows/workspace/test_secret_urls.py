"""No secret of a setting or of the environment is written anywhere: refused, moved or left out, and searched for."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from flows.cli.main import main
from flows.history.run_records import failure
from flows.workspace import form, secret_urls
from flows.workspace.graph import load_graph
from flows.workspace.params import check_params, read_params, set_values
from tasks.contracts.base import StageParams
from tasks.contracts.errors import HeadwaterError, InputError, ParamsError
from tasks.contracts.redaction import literal_secrets, without_secrets
from tasks.crawl.credentials import basic
from tasks.engine.session import RayParams
from tests.conftest import ROOT
from tests.leaks import leaks
from tests.tasks.crawl.test_credentials import AUTHORIZATION, PASSWORD, SIGNATURE, USER, Closed, documents, serving

KINDS = {
    "password": "https://operator:{}@h.example/a",
    "token as user": "https://{}@h.example/a",
    "password with @": "https://operator:{}@more@h.example/a",
    "password with slash": "https://operator:{}/x@h.example/a",
    "encoded userinfo": "https://operator%3A{}%40h.example@h.example/a",
    "backslashes": "https:\\\\operator:{}@h.example/a",
    "capitals": "HTTPS://operator:{}@h.example/a",
    "IPv6 host": "http://operator:{}@[::1]:8000/a",
    "git": "git+https://{}@h.example/a.git",
    "object store": "s3://AKIAEXAMPLE:{}@bucket/a",
    "ftp": "ftp://operator:{}@h.example/a",
    "database": "postgresql+psycopg2://operator:{}@h.example/db",
    "AWS signature": "https://b.s3.example/a?X-Amz-Date=20260101&X-Amz-Signature={}",
    "AWS token": "https://b.s3.example/a?X-Amz-Security-Token={}&x=1",
    "AWS, no scheme": "b.s3.example/a?x=1&x-amz-credential={}",
    "Google": "https://storage.example/a?X-Goog-Signature={}",
    "Azure SAS": "https://acct.blob.example/a?sv=2026-01-01&sig={}",
    "CloudFront": "https://d1.example/a?Policy={}&Key-Pair-Id=K1",
    "access token": "https://h.example/a?access_token={}",
    "camel case": "https://h.example/a?page=2&accessToken={}",
    "API key": "https://h.example/a?api-key={}",
    "encoded name": "https://h.example/a?api%5Fkey={}",
    "key": "https://h.example/a?key={}",
    "semicolon": "https://h.example/a?x=1;password={}",
    "fragment": "https://h.example/a#id_token={}",
    "URL in a URL": "https://proxy.example/?url=https%3A%2F%2Foperator%3A{}%40h.example%2F",
    "half a placeholder": "https://h.example/a?sig={}${{SIG}}",
}
SECRETS = {kind: f"s3cr3t-{number:02d}-{kind.encode().hex()[:12]}" for number, kind in enumerate(KINDS)}
URLS = {kind: form.format(SECRETS[kind]) for kind, form in KINDS.items()}
HARMLESS = (
    *("", "a.warc.gz", "data/*.jsonl", "https://h.example:8080/@joe/a?page=2&q=key", "https://h.example/a:b@c"),
    *("az://container@account/x", "mailto:joe@h.example", "joe@h.example", "https://h.example/?sig=${SIG}&se=1"),
    *("ftp://joe:${FTP_PASSWORD}@h.example/x", "[?&](token|sid)=", "https://h.example/${TOKEN}/a", "http://[::1]:80/"),
)


def models() -> dict[str, type[StageParams]]:
    return {"ray": RayParams, **{name: stage.params_class for name, stage in load_graph(ROOT / "dvc.yaml").items()}}


FIELDS = [(section, field) for section, model in models().items() for field in model.model_fields]


def test_there_are_enough_of_them() -> None:
    assert len(SECRETS) >= 20
    assert len(set(SECRETS.values())) == len(SECRETS)
    assert set(models()) == {"ray", *load_graph(ROOT / "dvc.yaml")}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_seen_and_left_out(kind: str) -> None:
    assert literal_secrets(URLS[kind])
    assert SECRETS[kind] not in " ".join(literal_secrets(URLS[kind]))
    for text in (URLS[kind], f"GET '{URLS[kind]}' failed", f"('{URLS[kind]}', 404)", f"<GET {URLS[kind]}>"):
        assert SECRETS[kind] not in without_secrets(text), text
    error = InputError(f"no {URLS[kind]}", where=URLS[kind], expected=URLS[kind], found=URLS[kind], fix=URLS[kind])
    assert SECRETS[kind] not in str(error) + repr(error) + repr(error.args)
    assert SECRETS[kind] not in failure(OSError(f"cannot open {URLS[kind]}")).message


@pytest.mark.parametrize("url", HARMLESS)
def test_harmless_ones_are_kept(url: str) -> None:
    assert not literal_secrets(url)
    assert re.fullmatch(form.NO_SECRET + r"[\s\S]*", url)


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_every_setting_refuses_every_kind(section: str, field: str) -> None:
    """Whatever a setting's type: in a text, a list, a mapping's value or key, or deep in a list of rules."""
    model = models()[section]
    for kind, url in URLS.items():
        for value in (url, [url], {"a": url}, {url: 1}, [{"rule": {"deep": ["x", url]}}]):
            with pytest.raises(ValidationError) as caught:
                model.model_validate({field: value})
            assert caught.value.errors()[0]["type"] == "secret", (kind, value)
            assert caught.value.errors()[0]["loc"][0] == field
            assert SECRETS[kind] not in str(caught.value) + repr(caught.value.errors())


@pytest.fixture
def settings(workspace: Path) -> Path:
    """A workspace with params.yaml, dvc.yaml and profiles."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, workspace)
    shutil.copytree(ROOT / "infra" / "profiles", workspace / "infra" / "profiles")
    return workspace


@pytest.mark.parametrize("section", models())
def test_a_change_is_refused_before_it_is_written(settings: Path, section: str) -> None:
    before = (settings / "params.yaml").read_bytes()
    for field in models()[section].model_fields:
        for kind in ("password", "Azure SAS"):
            with pytest.raises(ParamsError) as caught:
                set_values([f"{section}.{field}={json.dumps([URLS[kind]])}"])
            assert SECRETS[kind] not in str(caught.value)
    assert (settings / "params.yaml").read_bytes() == before
    assert not leaks(SECRETS, settings)


def called(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_line_does_not_write_or_show_one(settings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("password", "Azure SAS", "URL in a URL", "half a placeholder"):
        assert called("run", "--set", f"crawl.seeds=[{json.dumps(URLS[kind])}]") == 2
    for kind in ("password", "Azure SAS"):
        assert called("run", "--set", f"crawl.seeds={URLS[kind]}: [") == 2
        assert called("run", "--set", URLS[kind]) == 2
    printed = capfd.readouterr()
    assert "crawl.seeds.0: a secret stands in it" in printed.err
    assert not leaks(SECRETS, settings, printed)


def test_a_hand_written_one_stops_every_command_and_is_not_shown(
    settings: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written = (settings / "params.yaml").read_text()
    for url in (URLS["password"], URLS["CloudFront"]):
        (settings / "params.yaml").write_text(written.replace("seeds: []", f"seeds: [{json.dumps(url)}]"))
        with pytest.raises(ParamsError):
            check_params(read_params(), load_graph())
        assert called("stage", "crawl") == 2
        assert called("params", "show") == 2
        assert called("params", "diff") == 0
        assert called("params", "apply", "web") == 2
        assert called("run") == 2
    (settings / "params.yaml").unlink()
    printed = capfd.readouterr()
    assert not leaks(SECRETS, settings, printed)
    assert "***" in printed.out


def test_a_takedown_of_a_closed_page_is_noted_without_its_password(settings: Path) -> None:
    assert called("takedown", "add", URLS["password"], "--reason", "its author asked") == 0
    assert "https://h.example/a" in (settings / "infra" / "takedowns.jsonl").read_text()
    assert not leaks(SECRETS, settings)


def test_the_form_refuses_one_before_prefect_stores_it() -> None:
    """By the check that Prefect's server makes of a new run's parameters, with the schema that it is given."""
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools import validate
    from prefect.utilities.schema_tools.validation import ValidationError as Refused

    from flows.pipeline.flow import pipeline
    from flows.workspace.adaptation import OWN_SECTIONS

    schema = parameter_schema(pipeline).model_dump_for_openapi()
    checked = check_params(read_params(ROOT / "params.yaml"), load_graph(ROOT / "dvc.yaml"))
    defaults = {
        name: model.model_dump(mode="json", exclude=set(model.borrowed()))
        for name, model in checked.items()
        if name not in OWN_SECTIONS
    }
    validate({"settings": defaults}, schema, raise_on_error=True)
    common = ("password", "token as user", "capitals", "object store", "AWS signature", "Azure SAS", "access token")
    lists, texts = ("seeds", "sitemaps", "paths", "allow_hosts"), ("contact", "data_url", "index_url")
    for number, kind in enumerate(common):  # each in one list and one text, and each of those with several
        url, in_list, in_text = URLS[kind], lists[number % len(lists)], texts[number % len(texts)]
        for crawl in ({in_list: [url]}, {in_text: url}):
            with pytest.raises(Refused):
                validate({"settings": {"crawl": crawl}}, schema, raise_on_error=True)


def test_the_environments_urls_lose_their_passwords() -> None:
    given = {
        "MLFLOW_TRACKING_URI": "https://joe:pw%2Fone-of-mlflow@mlflow.example/base",
        "PREFECT_API_URL": "http://joe:pw-two-of-prefect@prefect.example/api",
        "HTTPS_PROXY": "http://joe:pw-three-of-proxy@proxy.example:3128",
        "AWS_ENDPOINT_URL": "https://store.example/?token=four-of-the-store",
        "RAY_ADDRESS": "ray://joe:pw-five-of-ray@head.example:10001",
    }
    changed = dict(given)
    secret_urls.hide_secrets(changed)
    assert changed["MLFLOW_TRACKING_URI"] == "https://mlflow.example/base"
    assert (changed["MLFLOW_TRACKING_USERNAME"], changed["MLFLOW_TRACKING_PASSWORD"]) == ("joe", "pw/one-of-mlflow")
    assert changed["PREFECT_API_URL"] == "http://prefect.example/api"
    assert changed["PREFECT_API_AUTH_STRING"] == "joe:pw-two-of-prefect"
    assert {name: changed[name] for name in list(given)[2:]} == {name: given[name] for name in list(given)[2:]}
    said = "pw/one-of-mlflow pw%2Fone-of-mlflow pw-two-of-prefect pw-three-of-proxy four-of-the-store pw-five-of-ray"
    assert without_secrets(said) == " ".join(["***"] * 6)


class Tracking:
    """A tracking server that wants a login and then knows nothing, so that whoever asks writes an error down."""

    def __init__(self) -> None:
        seen = self.seen = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("Authorization", ""))
                body = json.dumps({"error_code": "INVALID_STATE", "message": f"no {self.path}"}).encode()
                self.send_response(400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def tracking() -> Iterator[Tracking]:
    server = Tracking()
    yield server
    server.server.shutdown()


PLANTED = {
    "netrc password": PASSWORD,
    "netrc login": AUTHORIZATION.partition(" ")[2],
    "signature": SIGNATURE,
    "tracking password": "pw-of-the-tracking-server",
    "proxy password": "pw-of-the-proxy",
    "proxy password, lower case": "pw-of-the-other-proxy",
    "endpoint token": "token-of-the-endpoint",
    "Prefect password": "pw-of-prefect-77",
}


def planted_environment(home: Path, place: str) -> dict[str, str]:
    (home / "netrc").write_text(f"machine localhost login {USER} password {PASSWORD}\n")
    return {
        "NETRC": str(home / "netrc"),
        "SIG": SIGNATURE,
        "MLFLOW_TRACKING_URI": f"http://tracker:{PLANTED['tracking password']}@{place}",
        "MLFLOW_REGISTRY_URI": f"http://tracker:{PLANTED['tracking password']}@{place}",
        "HTTPS_PROXY": f"http://joe:{PLANTED['proxy password']}@127.0.0.1:9",
        "https_proxy": f"http://joe:{PLANTED['proxy password, lower case']}@127.0.0.1:9",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:9/?token={PLANTED['endpoint token']}",
        "PREFECT_API_URL": f"http://joe:{PLANTED['Prefect password']}@127.0.0.1:9/api",
    }


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_stage_leaves_no_secret_in_any_byte(
    settings: Path, tmp_path_factory: pytest.TempPathFactory, tracking: Tracking, ends_well: bool
) -> None:
    """`python -m flows crawl` as DVC calls it: closed files, an MLflow that fails, run record, logs, all outputs."""
    home = tmp_path_factory.mktemp("home")
    inside = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "PREFECT_"))}
    # A server that is not there makes whoever asks tell its whole address.
    inside |= planted_environment(home, tracking.place if ends_well else "127.0.0.1:9") | {"PYTHONPATH": str(ROOT)}
    with serving(Closed({"/basic/a.jsonl": documents(1), "/signed/b.jsonl": documents(2)})) as closed:
        base = f"http://localhost:{closed.port}"
        last = "b" if ends_well else "missing"
        paths = [f"{base}/basic/a.jsonl", f"{base}/signed/{last}.jsonl?sig=${{SIG}}"]
        set_values([f"crawl.paths={json.dumps(paths)}", "crawl.source=text"])
        command = [sys.executable, "-m", "flows", "crawl"]
        result = subprocess.run(command, env=inside, capture_output=True, text=True, timeout=300, check=False)
    printed = (result.stdout, result.stderr)
    assert (result.returncode == 0) is ends_well, result.stderr[-3000:]
    assert not leaks(PLANTED, settings, printed)
    if ends_well:
        assert basic("tracker", PLANTED["tracking password"]) in tracking.seen
        assert sorted(path.name for path in (settings / "data" / "crawl").glob("part-*"))
    (record,) = (settings / ".headwater" / "runs").glob("*/crawl.json")
    assert "${SIG}" in record.read_text()
    assert "MLflow does not show" in result.stderr


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The control: each way in which a secret could stand in a file, one at a time."""
    for secret in (SECRETS["password"], "short/of+letters", PASSWORD):
        encoded = basic("somebody", secret).encode()
        contents = {
            "plain": b"x" + secret.encode() + b"y",
            "quoted": quote(secret, safe="").encode(),
            "base64": encoded,
            "wide": secret.encode("utf-16-le"),
            "gzip": gzip.compress(b"a") + b"between" + gzip.compress(b"b" * 9000 + secret.encode() + b"c"),
            "gzip in gzip": gzip.compress(gzip.compress(encoded)),
        }
        for name, content in contents.items():
            folder = tmp_path / name.replace(" ", "-")
            folder.mkdir(exist_ok=True)
            (folder / "file").write_bytes(content)
            assert leaks({"it": secret}, folder), name
            assert not leaks({"it": "another one entirely"}, folder)
        table = pa.table({"a": [{"deep": [secret]}] * 3})
        pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
        assert leaks({"it": secret}, tmp_path) and "it in t.parquet" in leaks({"it": secret}, tmp_path)  # noqa: PT018
        with sqlite3.connect(tmp_path / "d.db") as database:
            database.execute("create table if not exists t (a text)")
            database.execute("insert into t values (?)", (secret,))
        assert "it in d.db" in leaks({"it": secret}, tmp_path)
        assert leaks({"it": secret}, tmp_path / "none", [f"said {secret}"]) == ["it in printed text 0"]
        (tmp_path / f"name of {secret.replace('/', '')}").touch()


def test_an_error_keeps_its_parts_across_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(HeadwaterError("x", found=URLS["password"], where="here")))
    assert (error.found, error.where) == ("https://***@h.example/a", "here")
