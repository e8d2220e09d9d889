"""When a crawl asks for Ray: on a cluster, and where more is left to take in than Ray takes to start."""

from __future__ import annotations

import os

import pytest

from tasks.crawl import processes
from tasks.crawl.processes import available, run_in_processes, spread
from tasks.engine import session
from tasks.engine.session import RayParams, ray_on_demand


class RayAskedForError(Exception):
    pass


@pytest.fixture(autouse=True)
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_params: RayParams) -> None:
        raise RayAskedForError

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session, "ray_session", refuse)


def test_what_takes_fresh_processes_needs_no_session_on_one_machine() -> None:
    with ray_on_demand(RayParams(num_cpus=1)):
        assert available() == 1
        assert run_in_processes(abs, [-1, -2]) == [1, 2]
    with ray_on_demand(RayParams()):
        assert available() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("asked", [available, lambda: run_in_processes(abs, [-1]), lambda: spread(abs, [-1, -2])])
def test_a_cluster_is_asked_at_once(monkeypatch: pytest.MonkeyPatch, asked) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    with ray_on_demand(RayParams()), pytest.raises(RayAskedForError):
        asked()


@pytest.mark.parametrize(("brief", "near", "done"), [(60.0, True, 3), (0.0, True, 1), (0.0, False, 3)])
def test_ray_is_asked_for_what_would_take_longer_here(
    monkeypatch: pytest.MonkeyPatch, brief: float, near: bool, done: int
) -> None:
    monkeypatch.setattr(processes, "brief_seconds", lambda: brief)
    monkeypatch.setattr(processes, "session_is_near", lambda: near)
    did: list[int] = []
    with ray_on_demand(RayParams(num_cpus=2)):
        if done == 3:
            assert spread(lambda job: did.append(job) or job, [1, 2, 3]) == [1, 2, 3]  # type: ignore[func-returns-value]
        else:
            with pytest.raises(RayAskedForError):
                spread(did.append, [1, 2, 3])
    assert did == [1, 2, 3][:done]


def test_without_an_offer_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "brief_seconds", lambda: 0.0)
    assert spread(abs, [-1, -2, -3]) == [1, 2, 3]
