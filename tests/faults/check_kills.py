"""Kills at random moments: `python -m pytest tests/faults/check_kills.py`, part of `make faults`.

KILLS (100) times a training run of two ranks is killed, some of them while a checkpoint is written, and started again:
it ends with the bytes of a run that nobody killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from tasks.contracts.manifest import manifest_hash
from tests.training.train.test_resume import finish, processes_with, start
from tests.training.train.token_folders import make_tokens

KILLS = int(os.environ.get("KILLS", "100"))


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    finish(start(tmp_path, "undisturbed", "state-0", every=1))
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    kills = saving = runs = 0
    while kills < KILLS:
        runs += 1
        output, state = f"run-{runs}", f"state-{runs}"
        while not (tmp_path / output / "_manifest.json").exists():
            run = start(tmp_path, output, state, every=1)
            at_a_save = kills % 5 == 0
            deadline = time.monotonic() + draw.uniform(4, 16)
            while run.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
                if at_a_save and list((tmp_path / state).glob("train/*/checkpoints/unfinished-*")):
                    saving += 1
                    break
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                kills += 1
            run.wait()
            while processes_with(str(tmp_path / state)):
                time.sleep(0.05)
        assert manifest_hash(tmp_path / output) == manifest_hash(tmp_path / "undisturbed"), f"seed {seed}"
    sys.stdout.write(f"{kills} kills, {saving} of them while saving, over {runs} runs, seed {seed}\n")
