"""A Ray that starts at the second attempt is a Ray; one that never does is one clear error.

A local session is reached over the loopback only, by whoever has its token; a cluster as the environment says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts.errors import HeadwaterError
from tasks.engine.session import TRIES, _start


@pytest.mark.parametrize("failures", range(TRIES + 1))
def test_ray_is_started_again_where_it_fails(failures: int) -> None:
    said: list[str] = []

    def init() -> None:
        said.append("init")
        if said.count("init") <= failures:
            raise TimeoutError("the node timed out")

    if failures < TRIES:
        _start(init, lambda: said.append("shutdown"))
        assert said == ["init", "shutdown"] * failures + ["init"]
    else:
        with pytest.raises(HeadwaterError, match="the node timed out"):
            _start(init, lambda: said.append("shutdown"))
        assert said == ["init", "shutdown"] * failures


def test_ray_is_imported_without_a_parser_of_urls() -> None:
    """With jsonschema's extra for formats, `import ray` builds a grammar: 1.2 s in every process of every stage."""
    code = "import ray, sys; sys.exit('rfc3987_syntax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "remove jsonschema[format-nongpl]"


SESSION = """
import json, os, subprocess, sys, psutil
if "first" in sys.argv:
    import ray
from tasks.engine.session import RayParams, ray_session
with ray_session(RayParams(num_cpus=1)):
    import ray
    loaded = sorted({"ray.data", "pandas"} & set(sys.modules))
    niceness = ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0)
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    lines = [line for process in tree for line in process.net_connections("inet") if line.status == "LISTEN"]
    there = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    def join(script, **environment):
        return subprocess.Popen([sys.executable, "-c", script], env={**there, **environment}, stderr=-3)
    joined = join(sys.argv[1])
    strange = "import ray; ray.init()"
    others = [join(strange, RAY_AUTH_TOKEN="0" * 64), join(strange, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="")]
    print(json.dumps({
        "loaded": loaded,
        "niceness": niceness,
        "addresses": sorted({line.laddr.ip for line in lines}),
        "ports": len(lines),
        "token": os.environ["RAY_AUTH_TOKEN"],
        "joined": joined.wait(100),
        "refused": [other.wait(100) for other in others],
    }))
"""
JOIN = """
import ray
from tasks.engine.session import RayParams, ray_session
with ray_session(RayParams()):
    assert ray.cluster_resources()["CPU"] == 1
"""


@pytest.mark.parametrize("loaded", ["first", "later"])
def test_a_local_session_is_on_the_loopback_and_is_joined_with_its_token_only(loaded: str) -> None:
    # As an environment that was made for something else: a cluster without authentication, another token file.
    inside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**inside, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", SESSION, JOIN, loaded]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert said.returncode == 0, said.stderr[-4000:]
    seen = json.loads(said.stdout.splitlines()[-1])
    assert seen["ports"] > 4
    assert set(seen["addresses"]) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert len(seen["token"]) == 64
    assert seen["joined"] == 0
    assert 0 not in seen["refused"], "joined without the session's token"
    assert seen["niceness"] == 0, "the default leaves the workers as they are"
    assert seen["loaded"] == [], "Ray Data brings pandas, a second of a processor, and a run only keeps the session"


AFTER_ANOTHER = """
import ray
ray.init(num_cpus=1, include_dashboard=False)
ray.shutdown()
from tasks.engine.session import RayParams, ray_session
with ray_session(RayParams(num_cpus=1)):
    print(ray.get(ray.remote(lambda: "worked").remote()))
"""


def test_a_session_after_another_libraries_has_its_own_token(tmp_path: Path) -> None:
    """Ray keeps the token that it read first; the first one's is in the home folder."""
    inside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", AFTER_ANOTHER], env={**inside, "HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["worked"], done.stderr[-4000:]


ENDED = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
from tasks.engine.session import RayParams, ray_session
try:
    with ray_session(RayParams(num_cpus=1, worker_niceness=3)):
        import ray
        print(ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0), "nicer")
        os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("put back")
"""


def test_workers_are_as_nice_as_is_set_and_a_process_that_is_told_to_end_ends_in_its_own_way() -> None:
    """A cancelled run puts back what it changed when SIGTERM comes; Ray's answer to it is an abort."""
    ended = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "3 nicer\nput back\n"), ended.stderr


ON_ONE = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from tasks.engine.session import RayParams, local_processors, ray_session
with ray_session(RayParams()):
    import ray
    print(local_processors(), ray.cluster_resources()["CPU"])
"""


def test_a_session_takes_no_more_processors_than_the_run_was_given() -> None:
    """A batch system gives a job some of a large machine's."""
    done = subprocess.run([sys.executable, "-c", ON_ONE], capture_output=True, text=True, check=False)
    assert done.stdout == "1 1.0\n", done.stderr
