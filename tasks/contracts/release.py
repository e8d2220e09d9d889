"""The layout of a release folder: the names of its papers, of its proofs, and of what is laid beside them later.

The weights and the tokenizer have Hugging Face's names (`files.py`). `verify.py`, which is copied into each release and
may import nothing, repeats the names that it needs; a test holds both to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

RELEASE_FOLDER: Final = "data/release"
"""Where the newest release is, from the root of a workspace."""

MODEL_CARD_NAME: Final = "README.md"
DATA_CARD_NAME: Final = "data_card.md"
EU_SUMMARY_NAME: Final = "eu_ai_act_summary.md"
EU_SUMMARY_JSON_NAME: Final = "eu_ai_act_summary.json"
AB2013_NAME: Final = "ab2013.md"
CROISSANT_NAME: Final = "croissant.json"
BILL_NAME: Final = "mlbom.cdx.json"
"""The bill of materials, CycloneDX."""
PROV_NAME: Final = "prov.jsonld"
"""Which stage made what from what, W3C PROV."""

GATE_NAME: Final = "gate.json"
"""The gate's report."""
LINEAGE_NAME: Final = "lineage.json"
"""Each stage with the hash of its manifest."""
MANIFESTS_FOLDER: Final = "manifests"
"""The manifest of every stage, STAGE.json."""
EVALUATION_FOLDER: Final = "evaluation"
"""What `evaluate` wrote."""
VERIFIER_NAME: Final = "verify.py"
SIGNATURE_NAME: Final = "model.sig"

TAKEDOWN_NOTICE_NAME: Final = "TAKEDOWN.md"
TAKEDOWN_MARK_NAME: Final = "takedown.json"
"""Laid into a release that holds what was taken down since; not covered by its manifest."""


def context_of(config: Mapping[str, Any]) -> int:
    """Return the longest context of a model, in tokens, as its config.json names it; GPT-2's has a name of its own.

    Raises:
        KeyError: it does not say.

    >>> context_of({"n_positions": 1024})
    1024
    """
    return int(config["n_positions" if "n_positions" in config else "max_position_embeddings"])
