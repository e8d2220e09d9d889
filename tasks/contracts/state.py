"""Where a workspace keeps what is half-done or local."""

from __future__ import annotations

import os
from pathlib import Path

STATE_VARIABLE = "HEADWATER_STATE"


def state_folder() -> Path:
    """Return the folder for half-done and local state, absolute: `.headwater`, or where HEADWATER_STATE points."""
    return Path(os.environ.get(STATE_VARIABLE, ".headwater")).resolve()
