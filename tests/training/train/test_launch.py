import json
from pathlib import Path

import numpy as np
import pytest

from tasks.contracts.errors import CorpusTooSmallError, ParamsError
from tasks.contracts.tokens import TokenShard, TokensInfo
from training.gate_policy import policy_sha256, read_policy
from training.train.checkpoint import StepLog, finished_checkpoints, read_log
from training.train.hyperparameters import Params
from training.train.launch import Launch
from training.train.stage import make_order


def info(tokens: int) -> TokensInfo:
    return TokensInfo(
        dtype="uint16",
        vocab_size=300,
        eos_id=0,
        tokens=tokens,
        shards=(TokenShard(name="part-00000.bin", tokens=tokens),),
        documents=1,
        bytes=tokens,
        validation_tokens=0,
        validation_bytes=0,
    )


def test_a_corpus_that_fills_no_step_is_named_with_both_numbers() -> None:
    params = Params(batch_size=16, seq_len=256)
    with pytest.raises(CorpusTooSmallError, match=r"16 sequences(.|\n)*15 sequences(.|\n)*train.batch_size"):
        make_order(params, info(3800), 15, "0" * 64)
    assert make_order(params, info(4090), 16, "0" * 64).steps == 1


def test_no_run_goes_past_the_end_of_the_data_unless_epochs_allow_it() -> None:
    few = info(16 * 256 * 3)
    steps = {
        (limit, epochs): make_order(
            Params(batch_size=16, seq_len=256, max_steps=limit, epochs=epochs), few, 16 * 3 + 5, "0" * 64
        ).steps
        for limit, epochs in [(None, 1), (2, 1), (4, 1), (4, 2), (None, 2)]
    }
    assert steps == {(None, 1): 3, (2, 1): 2, (4, 1): 3, (4, 2): 4, (None, 2): 6}


def test_a_batch_that_ranks_cannot_share_is_an_error() -> None:
    with pytest.raises(ParamsError, match="multiple of"):
        make_order(Params(batch_size=10, num_ranks=2, gradient_accumulation=2), info(10**6), 3000, "0" * 64)


def test_an_unfinished_checkpoint_is_never_looked_at(tmp_path: Path) -> None:
    for name, whole in [("step-00000010", True), ("step-00000020", False), ("unfinished-step-00000030", True)]:
        (tmp_path / name).mkdir()
        if whole:
            (tmp_path / name / "complete.json").write_text("{}")
    assert [path.name for path in finished_checkpoints(tmp_path)] == ["step-00000010"]


def test_a_step_log_is_cut_back_to_the_checkpoint_and_each_step_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = StepLog(path, 0)
    for step in range(8):
        log.append({"step": step})
    log._stream.close()
    with path.open("ab") as stream:
        stream.write(b'{"step": 8')
    resumed = StepLog(path, 5)
    for step in range(5, 10):
        resumed.append({"step": step})
    resumed._stream.close()
    assert [row["step"] for row in read_log(path)] == list(range(10))


def test_the_policy_hash_follows_thresholds_and_tasks_and_fills_in_defaults() -> None:
    base = policy_sha256(read_policy({}), ["a"])
    assert base == policy_sha256(read_policy({"confidence": 0.95}), ["a"])
    assert base != policy_sha256(read_policy({"confidence": 0.9}), ["a"])
    assert base != policy_sha256(read_policy({}), ["a", "b"])
    with pytest.raises(ParamsError, match=r"gate\.confidense"):
        read_policy({"confidense": 0.9})


def test_settings_that_change_no_byte_are_not_part_of_the_identity() -> None:
    assert Params(launcher="deepspeed", checkpoint_every_seconds=1).identity() == Params().identity()
    assert Params(num_ranks=2).identity() != Params().identity()
    json.dumps(Params().identity())
    assert np.isfinite(Params().learning_rate)


def test_one_rank_alone_needs_no_launcher(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    alone, two = (Launch(launcher="torchrun", ranks=ranks) for ranks in (1, 2))
    assert alone.command(config)[1:] == ["-m", "training.train.loop", str(config)]
    assert alone.environment()["WORLD_SIZE"] == "1"
    assert "torch.distributed.run" in two.command(config)
    assert two.environment() == {}, "torchrun says it"
    assert "torch.distributed.run" in Launch(launcher="torchrun", ranks=1, nodes=2).command(config)
