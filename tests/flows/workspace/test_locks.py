from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.workspace.locks import workspace_lock
from tasks.contracts.errors import LockedError
from tests.conftest import ROOT

HOLD = """
import time
from flows.workspace.locks import workspace_lock
with workspace_lock("run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_the_same_workspace_is_told_who_holds_it(workspace: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid}"), workspace_lock("run"):
            pass
        with workspace_lock("stage"):
            pass
        holder.kill()
        holder.wait()
    with workspace_lock("run"):
        pass
