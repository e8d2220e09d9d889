"""Training's progress is followed through restarts, half lines and an MLflow that comes back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mlflow.entities import Metric

from flows.mlflow.training_tail import TrainingTail


class Log:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.broken = False

    def __call__(self, metrics: Iterable[Metric]) -> None:
        if self.broken:
            raise OSError("no MLflow")
        self.steps += [metric.step for metric in metrics]


def line(step: int) -> str:
    return f'{{"step": {step}, "loss": 2.5}}\n'


def test_lines_of_an_earlier_training_run_are_not_told_again(tmp_path: Path) -> None:
    path, log = tmp_path / "progress.jsonl", Log()
    path.write_text(line(1))
    tail = TrainingTail(log, path, (path.stat().st_ino, path.stat().st_size))
    with path.open("a") as stream:
        stream.write(line(2))
    tail.stop()
    assert log.steps == [2]


def test_a_file_that_starts_over_is_read_from_its_beginning(tmp_path: Path) -> None:
    path, log = tmp_path / "progress.jsonl", Log()
    path.write_text(line(1) + line(2))
    tail = TrainingTail(log, path, (path.stat().st_ino, path.stat().st_size))
    path.unlink()
    path.write_text(line(7))
    tail.stop()
    assert log.steps == [7]


def test_half_a_line_waits_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    path, log = tmp_path / "progress.jsonl", Log()
    path.write_text(line(1) + "not json\n" + '{"step": 2, "lo')
    tail = TrainingTail(log, path)
    tail.stop()
    assert log.steps == [1]
    path.write_text(line(1) + "not json\n" + line(2))
    tail.stop()
    assert log.steps == [1, 2]


def test_nothing_is_lost_while_mlflow_is_away(tmp_path: Path) -> None:
    path, log = tmp_path / "progress.jsonl", Log()
    path.write_text(line(1))
    log.broken = True
    tail = TrainingTail(log, path)
    tail.stop()
    log.broken = False
    tail.stop()
    assert log.steps == [1]
