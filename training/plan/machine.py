"""What a model is to train on: devices, the host around them, and the links between."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
GIGA = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An accelerator, by its data sheet (devices.json).

    Attributes:
        reports: names by which PyTorch knows it. A PCIe card or a laptop's chip of a like name has another peak.
        kind: whose measured share of the peak it has.
        flops: operations a second in bf16, dense.
        memory: bytes.
        bandwidth: of its memory, bytes a second.
        link: to the other devices of the node, bytes a second in one direction.
        host_link: to the host's memory, likewise.
        network: its share of the node's network, likewise.
        watts: power limit.
        price: dollars an hour to rent, where the list that devices.json names has it.
    """

    name: str
    title: str
    reports: tuple[str, ...]
    kind: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    host_link: float
    network: float
    watts: float
    price: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Nodes that are alike.

    Attributes:
        devices: of a node.
        host_memory, nvme: bytes of a node.
        host_bandwidth: that Adam reaches on a node's host, bytes a second. The default is what DeepSpeed's authors saw:
            a step of Llama 2 7B on four A100 takes 0.5 s, and over 7 s with the optimizer on the host
            (DeepSpeed, blogs/deepspeed-zenflow).
        nvme_bandwidth: of a node's disks, bytes a second; the default is one PCIe 4 disk.
    """

    device: Device
    devices: int = 1
    nodes: int = 1
    host_memory: float = 0.0
    nvme: float = 0.0
    host_bandwidth: float = 32e9
    nvme_bandwidth: float = 6e9

    @property
    def ranks(self) -> int:
        """All devices."""
        return self.devices * self.nodes


@functools.cache
def devices() -> dict[str, Device]:
    """Return the devices whose data sheets are known, by name."""
    said = json.loads((Path(__file__).parent / "devices.json").read_bytes())["devices"]
    return {
        name: Device(
            name=name,
            title=one["title"],
            reports=tuple(one["reports"]),
            kind=one["kind"],
            flops=one["tflops"] * 1e12,
            memory=one["memory_gib"] * GIB,
            bandwidth=one["bandwidth"] * GIGA,
            link=one["link"] * GIGA,
            host_link=one["host_link"] * GIGA,
            network=one["network"] * GIGA,
            watts=one["watts"],
            price=one["price"],
        )
        for name, one in said.items()
    }


PROCESSOR = Device(
    name="cpu",
    title="processor",
    reports=(),
    kind="cpu",
    flops=0.0,
    memory=0.0,
    bandwidth=0.0,
    link=0.0,
    host_link=0.0,
    network=0.0,
    watts=0.0,
    price=None,
)
"""What runs without a GPU is planned on: all of a run lies in the host's memory. Nothing is said of its speed."""


def device_that_reports(name: str) -> Device | None:
    """Return the device that PyTorch calls so; None where its data sheet is not known.

    >>> device_that_reports("NVIDIA H100 80GB HBM3").title, device_that_reports("NVIDIA H100 PCIe")
    ('H100 SXM 80 GB', None)
    """
    return next((device for device in devices().values() if name in device.reports), None)
