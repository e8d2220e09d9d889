"""The command that starts the ranks: on this machine, or on several that see this workspace at one path.

torchrun starts the ranks of one machine, so each machine runs it; deepspeed reaches the others by ssh, from a hostfile
(`NAME slots=N` a line); slurm is torchrun on each machine of an allocation, by srun.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.contracts.errors import HeadwaterError, ParamsError

Launcher = Literal["torchrun", "deepspeed", "slurm"]

LOOPBACK = "127.0.0.1"
PORT = 29500
"""Where torchruns meet by default, of several machines; PyTorch's own."""
_HOST_LINE = re.compile(r"(?P<host>\S+)\s+slots=(?P<slots>\d+)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the ranks are to be started.

    Attributes:
        ranks: processes on each machine.
        nodes: machines.
        rendezvous: host:port at which the torchruns of several machines meet; None meets in a file beside the config.
        hostfile: of deepspeed, the machines.
        restarts: how often torchrun starts ranks again that were lost on several machines.
    """

    launcher: Launcher
    ranks: int
    nodes: int = 1
    rendezvous: str | None = None
    hostfile: Path | None = None
    restarts: int = 0

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield what keeps the ranks from being started so, from here."""
        if self.nodes == 1 and self.launcher != "slurm":
            for name, value in (("rendezvous", self.rendezvous), ("hostfile", self.hostfile)):
                if value is not None:
                    yield _fault(name, "nothing where train.nodes is 1", value)
        if self.rendezvous is not None and not _is_address(self.rendezvous):
            yield _fault("rendezvous", f"host:port, as node0:{PORT}", self.rendezvous)
        if self.launcher == "deepspeed" and self.nodes > 1:
            yield from self._faults_of_hostfile()
        if self.launcher == "slurm":
            yield from self._faults_of_slurm()

    def _faults_of_hostfile(self) -> Iterator[HeadwaterError]:
        if self.hostfile is None:
            yield _fault("hostfile", "the path of a file, NAME slots=N a line, for deepspeed on several machines", None)
            return
        try:
            hosts = read_hostfile(self.hostfile)
        except HeadwaterError as error:
            yield error
            return
        few = {host: slots for host, slots in hosts.items() if slots < self.ranks}
        if len(hosts) != self.nodes or few:
            yield ParamsError(
                "the hostfile does not hold the machines that are asked for",
                where=str(self.hostfile),
                expected=f"{self.nodes} machines (train.nodes) of {self.ranks} slots or more (train.num_ranks)",
                found=", ".join(f"{host} slots={slots}" for host, slots in hosts.items()) or "no machine",
            )

    def _faults_of_slurm(self) -> Iterator[HeadwaterError]:
        if shutil.which("srun") is None or "SLURM_JOB_ID" not in os.environ:
            there = "srun is not on PATH" if shutil.which("srun") is None else "no SLURM_JOB_ID in the environment"
            yield ParamsError(
                "slurm starts ranks within an allocation only",
                where="params.yaml, train.launcher",
                expected=f"a job of {self.nodes} machine(s), in which this run was started",
                found=there,
                fix=f"`sbatch --nodes={self.nodes} --ntasks-per-node=1 --wrap 'headwater run'`, or another launcher",
            )
        elif (got := os.environ.get("SLURM_JOB_NUM_NODES", "1")) != str(self.nodes):
            yield _fault("nodes", f"the {got} of this allocation (SLURM_JOB_NUM_NODES)", self.nodes)

    def command(self, config: Path) -> list[str]:
        """Return the command that starts the ranks, or those of one machine with torchrun.

        Args:
            config: the LoopConfig, as JSON.
        """
        if self.alone:
            return [sys.executable, *_MODULE, str(config)]
        if self.launcher == "deepspeed":
            return self._deepspeed(config)
        torchrun = [sys.executable, "-m", "torch.distributed.run", *self._meeting(config)]
        # torchrun makes a folder for logs, used or not; by default in /tmp, where it stays.
        torchrun += [f"--nproc-per-node={self.ranks}", f"--log-dir={config.parent}"]
        # Where there is one machine, whoever calls starts all ranks again, and knows whether that is of use.
        torchrun += [f"--max-restarts={self.restarts if self.by_hand else 0}", *_MODULE, str(config)]
        if self.launcher == "torchrun":
            return torchrun
        spread = [f"--nodes={self.nodes}", f"--ntasks={self.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        return ["srun", *spread, *torchrun]

    def environment(self) -> dict[str, str]:
        """Return what a rank's environment must say where no launcher says it."""
        said = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": LOOPBACK, "MASTER_PORT": "0"}
        return said if self.alone else {}

    @property
    def alone(self) -> bool:
        """Whether there is one rank, which torchrun would take seconds to start."""
        return self.launcher == "torchrun" and self.nodes == self.ranks == 1

    @property
    def by_hand(self) -> bool:
        """Whether a person, or a script, starts the command on the other machines."""
        return self.launcher == "torchrun" and self.nodes > 1

    def _meeting(self, config: Path) -> list[str]:
        if self.nodes == 1:
            store = _new_store(config)
            own = [f"--rdzv-endpoint={store}", "--rdzv-conf=store_type=file", f"--local-addr={LOOPBACK}"]
            return ["--rdzv-backend=c10d", *own]
        several = [f"--nnodes={self.nodes}", f"--rdzv-id={config.parent.name[:16]}", "--rdzv-backend=c10d"]
        if self.rendezvous is not None:
            return [*several, f"--rdzv-endpoint={self.rendezvous}"]
        return [*several, f"--rdzv-endpoint={_new_store(config)}", "--rdzv-conf=store_type=file"]

    def _deepspeed(self, config: Path) -> list[str]:
        start = [sys.executable, "-m", "deepspeed.launcher.runner"]
        if self.nodes == 1:
            start += ["--hostfile", os.devnull, "--num_accelerators", str(self.ranks)]
            start += ["--master_addr", LOOPBACK, "--master_port", str(_free_port())]
        else:
            start += ["--hostfile", str(self.hostfile), "--num_nodes", str(self.nodes)]
            start += ["--num_accelerators", str(self.ranks), "--master_port", str(PORT)]
        return [*start, "--module", _MODULE[1], str(config)]


_MODULE = ("-m", "training.train.loop")


def on_other_machines(command: list[str], environment: Mapping[str, str], folder: Path) -> str:
    """Return a command as it is typed on another machine.

    Args:
        environment: what it needs in its environment.
        folder: where it is to be started: the project's code.
    """
    given = [f"{name}={value}" for name, value in environment.items()]
    return f"cd {shlex.quote(str(folder))} && {shlex.join(['env', *given, *command])}"


def read_hostfile(path: Path) -> dict[str, int]:
    """Return the machines of a hostfile with their slots.

    Raises:
        ParamsError: it cannot be read, or a line of it is none.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(
            "the hostfile cannot be read", where=str(path), expected="NAME slots=N a line", found=str(error)
        ) from error
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not (text := line.partition("#")[0].strip()):
            continue
        found = _HOST_LINE.fullmatch(text)
        if found is None or found["host"] in hosts:
            raise ParamsError(
                "a line of the hostfile cannot be read" if found is None else "a machine stands twice in the hostfile",
                where=f"{path}, line {number}",
                expected="NAME slots=N, each machine once",
                found=line,
            )
        hosts[found["host"]] = int(found["slots"])
    return hosts


def _fault(name: str, expected: str, found: object) -> ParamsError:
    return ParamsError(
        "the ranks cannot be started so",
        where=f"params.yaml, train.{name}",
        expected=expected,
        found="null" if found is None else str(found),
    )


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and not re.search(r"[\s/]", host) and port.isdecimal() and 0 < int(port) < 1 << 16


def _new_store(config: Path) -> Path:
    store = config.with_name(f"torchrun-{os.getpid()}")
    store.unlink(missing_ok=True)
    return store


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
