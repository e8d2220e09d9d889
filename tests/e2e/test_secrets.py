"""A run through Prefect, DVC, Ray and MLflow on closed files, with secrets in every variable: none is left anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.workspace import Workspace
from tests.leaks import leaks
from tests.tasks.crawl.test_credentials import PASSWORD, SIGNATURE, USER, Closed, serving

pytestmark = pytest.mark.e2e

VARIABLES = {
    "HTTPS_PROXY": "http://joe:{}@127.0.0.1:9",
    "https_proxy": "http://joe:{}@127.0.0.1:9",
    "ALL_PROXY_OF_OURS": "socks5://joe:{}@127.0.0.1:9",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9/?token={}",
    "GIT_REMOTE": "https://{}@git.example/repository.git",
    "DATABASE_URL": "postgresql://joe:{}@127.0.0.1:9/db",
    "RCLONE_REMOTE": "sftp://joe:{}@127.0.0.1:9/",
    "SOME_WEBHOOK": "https://hooks.example/?key={}",
    "STORE_SAS": "https://acct.blob.example/c?sv=2026-01-01&sig={}",
    "SIGNED": "https://b.s3.example/a?X-Amz-Signature={}",
}


SESSION = """
import json, os, sys
from tasks.engine.session import RayParams, ray_session
before = dict(os.environ)
with ray_session(RayParams(num_cpus=2)):
    import ray
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    print(json.dumps({name: said for name, said in os.environ.items() if before.get(name) != said}), flush=True)
    sys.stdin.read()
"""


@contextmanager
def session(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A Ray session for the block, and how it is joined: a run of so few pages would start none."""
    with subprocess.Popen(
        [sys.executable, "-c", SESSION],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()


@pytest.fixture
def ray() -> Iterator[Path]:
    """A folder for Ray's sessions, which are kept outside the workspace; its sockets' names must be short."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield Path(folder)


def test_a_run_leaves_no_secret(tmp_path: Path, ray: Path) -> None:
    secrets = {name: f"planted-{number:02d}-{name.lower()}" for number, name in enumerate(VARIABLES)}
    workspace = Workspace.clone(tmp_path / "workspace")
    (tmp_path / "netrc").write_text(f"machine localhost login {USER} password {PASSWORD}\n")
    workspace.environment |= {name: url.format(secrets[name]) for name, url in VARIABLES.items()}
    workspace.environment |= {
        "NETRC": str(tmp_path / "netrc"),
        "SIG": SIGNATURE,
        "RAY_TMPDIR": str(ray),
        "NO_PROXY": "127.0.0.1",
    }
    words = "The crawler reads a page and the reader keeps what it says about the weather of the year. " * 12
    rows = [{"id": str(i), "text": f"Page {i}. {words}", "url": f"http://joe:of-a-row@h.example/{i}"} for i in range(9)]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    files = {"/basic/a.jsonl": lines, "/signed/b.jsonl": lines.replace(b'"id": "', b'"id": "b')}
    with serving(Closed(files)) as closed, session(workspace.environment) as joined:
        workspace.environment |= joined
        paths = [f"http://localhost:{closed.port}/{name}" for name in ("basic/a.jsonl", "signed/b.jsonl?sig=${SIG}")]
        sets = ["--set", f"crawl.paths={json.dumps(paths)}", "--set", "crawl.source=text"]
        refused = workspace.run(
            "headwater",
            "run",
            "--until",
            "extract",
            "--set",
            f'crawl.seeds=["http://u:{secrets["SIGNED"]}@h/"]',
            code=2,
        )
        printed = workspace.run("headwater", "run", "--until", "extract", *sets)
        missing = workspace.run(
            "headwater", "run", "--until", "crawl", "--set", f"crawl.paths={json.dumps([paths[1] + '&more'])}", "--set",
            "crawl.text_column=no_such_column", code=1,
        )  # fmt: skip
    assert workspace.manifest("extract").counts.in_ == 18
    secrets |= {"netrc": PASSWORD, "signature": SIGNATURE, "of a row": "of-a-row"}
    assert "${SIG}" in (workspace.folder / "dvc.lock").read_text()
    assert list((workspace.folder / ".headwater").rglob("prefect.db"))
    assert list((workspace.folder / ".headwater").rglob("mlflow.db"))
    assert list(ray.rglob("*.log"))
    shutil.rmtree(workspace.folder / "tests")  # where they stand as sources
    assert not leaks(secrets, workspace.folder, [refused, printed, missing])
    assert not leaks(secrets, ray)
