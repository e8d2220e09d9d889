"""The names of the evaluation tasks that holdout makes, by which evaluate, decontaminate and the gate know them."""

BITS_PER_BYTE = "heldout_bits_per_byte"
CONTINUATION = "heldout_continuation"
LOCAL_TASKS = (BITS_PER_BYTE, CONTINUATION)
