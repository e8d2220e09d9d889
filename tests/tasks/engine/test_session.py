"""A Ray that starts at the second attempt is a Ray; one that never does is one clear error."""

from __future__ import annotations

import subprocess
import sys

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
