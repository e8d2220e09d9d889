"""A Ray that starts at the second attempt is a Ray; one that never does is one clear error."""

from __future__ import annotations

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
