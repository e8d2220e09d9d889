"""`headwater plan`: whether a model fits a machine, by which strategy, how fast, how long and for how much."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.output import JsonOption, Text, console
from tasks.contracts.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from training.plan.choice import Estimate, Wish
    from training.plan.machine import Machine
    from training.plan.speed import Run
    from training.train.dry_run import Tracked
    from training.train.model import ModelSize

GB = 10**9
YEAR = 365.25


def plan(
    model: Annotated[str | None, typer.Option(help="A preset, a size (120b), numbers or a model's folder.")] = None,
    device: Annotated[str, typer.Option(help="An accelerator: h100, h200, a100-80gb, rtx-4090 …")] = "h100",
    devices: Annotated[int, typer.Option(min=1, help="Accelerators of a node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.")] = 1,
    device_memory: Annotated[str | None, typer.Option(help="Memory of a device; its data sheet's.")] = None,
    host_memory: Annotated[str, typer.Option(help="Memory of a node, as 1TB.")] = "256GB",
    nvme: Annotated[str, typer.Option(help="Disk of a node that states may lie on, as 4TB.")] = "0",
    nvme_bandwidth: Annotated[str, typer.Option(help="Bytes a second of that disk.")] = "6GB",
    seq_len: Annotated[int | None, typer.Option(min=8, help="Tokens of a sequence.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences of a step, over all devices.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens to train on, as 100G; 20 for each weight.")] = None,
    vocabulary: Annotated[int | None, typer.Option(min=2, help="Size of the vocabulary.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do a step of all ranks with tensors of no memory.")
    ] = False,
    write: Annotated[Path | None, typer.Option(help="Write DeepSpeed's config of what is recommended.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say for each strategy what it needs of device, host and disk, whether it fits, tokens a second, days and cost.

    What is not given is as params.yaml has it, where there is one and no other model is named. Exit code 1 when nothing
    fits. --dry-run takes the model through a step of FSDP2 on that many ranks, on this machine and without a GPU, and
    says beside the plan what a rank would hold.

    Example: headwater plan --model 70b --device h200 --host-memory 2TB --nvme 4TB
    """
    from flows.workspace.planned import amount, shape_of
    from training.plan.choice import TOKENS_A_WEIGHT, Wish, default_batch, estimates, recommend
    from training.plan.deepspeed_config import deepspeed_config
    from training.plan.machine import Machine
    from training.plan.machine import devices as known

    if device not in known():
        raise UsageError(
            "there is no such device", expected=", ".join(known()), found=device, fix=did_you_mean(device, known())
        )
    chosen = known()[device]
    if device_memory is not None:
        chosen = replace(chosen, memory=amount(device_memory, "--device-memory"))
    machine = Machine(
        device=chosen,
        devices=devices,
        nodes=nodes,
        host_memory=amount(host_memory, "--host-memory"),
        nvme=amount(nvme, "--nvme"),
        nvme_bandwidth=amount(nvme_bandwidth, "--nvme-bandwidth"),
    )
    here = _from_params() if model is None else None
    seq_len = seq_len or (here.seq_len if here else 2048)
    batch = batch or (here.batch if here else default_batch(seq_len, machine.ranks))
    if batch % machine.ranks:
        raise UsageError(
            "a step cannot be shared out evenly",
            expected=f"--batch of a multiple of {machine.ranks} devices",
            found=str(batch),
        )
    vocabulary = vocabulary or (here.vocabulary if here else 32_000)
    if here is not None:
        shape = here.size.shape(vocab_size=vocabulary, seq_len=seq_len)
    else:
        shape = shape_of(str(model), vocab_size=vocabulary, seq_len=seq_len)
    wanted = amount(tokens, "--tokens") if tokens else float(TOKENS_A_WEIGHT * shape.weights)
    if dry_run and machine.ranks == 1:
        raise UsageError("one device shares nothing out", expected="--devices or --nodes of 2 or more with --dry-run")
    wish = Wish(shape=shape, machine=machine, seq_len=seq_len, batch=batch, tokens=wanted)
    found = estimates(wish)
    best = recommend(found)
    if write is not None and best is not None:
        try:
            write.write_text(json.dumps(deepspeed_config(best.run), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError("the config cannot be written", where=str(write), found=str(error.strerror)) from error
    tracked = _dry_run(found) if dry_run else None
    if as_json:
        console.json(_value(wish, found, best) | ({} if tracked is None else {"dry_run": _both(*tracked)}))
    else:
        _show(wish, found, best, write)
        if tracked is not None:
            _show_dry_run(*tracked)
    if best is None:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """What params.yaml says of the model that is trained here."""

    size: ModelSize
    seq_len: int
    batch: int
    vocabulary: int


def _from_params() -> _Here:
    """Read and check params.yaml.

    Raises:
        UsageError: there is none.
        ParamsError: it cannot be used.
    """
    from flows.workspace.graph import load_graph
    from flows.workspace.params import PARAMS_FILE, check_params, read_params
    from tasks.tokenizer.stage import Params as TokenizerParams
    from training.train.hyperparameters import Params as TrainParams

    if not PARAMS_FILE.is_file():
        raise UsageError("no model is named, and there is no params.yaml here", expected="--model NAME", found="none")
    checked = check_params(read_params(), load_graph())
    train, tokenizer = checked["train"], checked["tokenizer"]
    assert isinstance(train, TrainParams), "the section of that stage"
    assert isinstance(tokenizer, TokenizerParams), "the section of that stage"
    return _Here(size=train.model, seq_len=train.seq_len, batch=train.batch_size, vocabulary=tokenizer.vocab_size)


def _value(wish: Wish, found: list[Estimate], best: Estimate | None) -> dict[str, Any]:
    from training.plan.deepspeed_config import deepspeed_config
    from training.plan.published import error, published

    held_out = error(row for row in published() if row.held_out)
    return {
        "weights": wish.shape.weights,
        "tokens": wish.tokens,
        "estimates": [_row(one) for one in found],
        "recommended": None if best is None else _row(best) | {"deepspeed": deepspeed_config(best.run)},
        "error": {"rows": held_out.rows, "median": held_out.median, "ninety_percent_within": held_out.worst_tenth},
    }


def _row(one: Estimate) -> dict[str, Any]:
    run = one.run
    return {
        "strategy": run.strategy.name,
        "activation_checkpointing": run.checkpointing == "full",
        "moment_bits": run.moment_bits,
        "micro_batch": run.micro_batch,
        "gradient_accumulation": run.accumulation,
        "device_bytes": round(one.memory.device),
        "host_bytes": round(one.memory.host),
        "disk_bytes": round(one.memory.nvme),
        "fits": one.fits,
        "lacks": list(one.lacks),
        "tokens_per_second": round(one.tokens_per_second, 1),
        "mfu": round(_mfu(one), 4),
        "days": round(one.days, 3),
        "kilowatt_hours": round(one.kilowatt_hours, 1),
        "dollars": None if one.dollars is None else round(one.dollars, 2),
    }


def _dry_run(found: list[Estimate]) -> tuple[Run, Tracked]:
    """Do a step by FSDP2: with activations kept where that fits, else computed again."""
    from flows.workspace.planned import size_of
    from training.train.dry_run import dry_run

    ways = [one for one in found if one.run.strategy.name == "fsdp" and one.run.moment_bits == 32]
    run = next((one for one in ways if one.fits), ways[-1]).run
    tracked = dry_run(
        size_of(run.shape),
        vocab_size=run.shape.vocabulary,
        seq_len=run.seq_len,
        micro_batch=run.micro_batch,
        ranks=run.machine.ranks,
        checkpointing=run.checkpointing == "full",
    )
    return run, tracked


def _both(run: Run, tracked: Tracked) -> dict[str, dict[str, int]]:
    """Return what was tracked and what is planned, in bytes, by kind."""
    from training.plan.memory import memory, working_bytes

    planned = memory(run)
    return {
        "states": {"tracked": tracked.states, "planned": round(planned.states)},
        "activations": {"tracked": tracked.activations, "planned": round(planned.activations)},
        "gathered": {"tracked": tracked.gathered, "planned": round(working_bytes(run))},
        "peak": {"tracked": tracked.peak, "planned": round(planned.device)},
    }


def _show_dry_run(run: Run, tracked: Tracked) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("GB of a rank", "dry run", "planned"):
        table.add_column(name, justify="left" if name == "GB of a rank" else "right", no_wrap=True)
    for kind, both in _both(run, tracked).items():
        table.add_row(kind, f"{both['tracked'] / GB:,.2f}", f"{both['planned'] / GB:,.2f}")
    again = ", activations computed again" if run.checkpointing == "full" else ""
    console.print(f"A step of FSDP2 on {run.machine.ranks} ranks, {run.micro_batch} sequences at once{again}:")
    console.print(table)
    console.print("The plan's peak has in it what the allocator and the GPU's libraries take besides.")


def _mfu(one: Estimate) -> float:
    from training.plan.speed import model_flops_utilisation

    run = one.run
    peak = run.machine.ranks * run.machine.device.flops
    return model_flops_utilisation(run.shape, seq_len=run.seq_len, tokens_per_second=one.tokens_per_second, peak=peak)


def _show(wish: Wish, found: list[Estimate], best: Estimate | None, written: Path | None) -> None:
    machine, shape = wish.machine, wish.shape
    said = f"{shape.weights / GB:.3g} billion weights, {wish.seq_len:,} tokens a sequence, "
    said += f"{wish.batch:,} sequences a step, {_tokens(wish.tokens)} tokens; on {_machine(machine)}"
    console.print(said)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("strategy", "device", "host", "disk", "micro", "tokens/s", "time", "cost"):
        table.add_column(name, justify="left" if name == "strategy" else "right", no_wrap=True)
    for one in found:
        if one.run.moment_bits == 8 and (_fits_exactly(one, found) or not one.fits):
            continue
        memory = one.memory
        cells = [_gb(memory.device), _gb(memory.host), _gb(memory.nvme), f"{one.run.micro_batch}"]
        cells += (
            [f"{one.tokens_per_second:,.0f}", _short(_time(one.days)), _dollars(one.dollars)] if one.fits else ["–"] * 3
        )
        style = "bold green" if one is best else "" if one.fits else "dim"
        table.add_row(Text(_name(one), style=style), *(Text(cell, style=style) for cell in cells))
    console.print(table)
    console.print(
        "GB of a device, of a node's host and of its disks; micro: sequences at once on a device; +ck: activation "
        "checkpointing; 8-bit: Adam's moments, shown where they decide."
    )
    _verdict(found, best, written)
    _state_error(wish, best)


def _verdict(found: list[Estimate], best: Estimate | None, written: Path | None) -> None:
    from training.plan.choice import nearest
    from training.train.strategy import as_setting, can_be_resumed

    if best is None:
        least = nearest(found)
        needs = least.memory
        said = f"Nothing fits. Nearest is {_name(least)}, which needs {_gb(needs.device)} GB of a device, "
        said += f"{_gb(needs.host)} GB of host memory and {_gb(needs.nvme)} GB of disk: "
        said += f"too small is the {', the '.join(least.lacks)}."
        console.print(said, style="bold red")
        return
    said = f"Take {_name(best)}: {best.tokens_per_second:,.0f} tokens/s, {_mfu(best):.0%} MFU, {_time(best.days)}, "
    said += f"{best.kilowatt_hours:,.0f} kWh at the devices' power limit"
    said += f", {_dollars(best.dollars)} to rent them." if best.dollars is not None else "; no price is known."
    console.print(said, style="bold")
    if setting := as_setting(best.run.strategy.name):
        run = best.run
        said = f"In params.yaml, train: strategy: {setting}, num_ranks: {run.machine.devices}, "
        said += f"gradient_accumulation: {run.accumulation}, "
        said += f"activation_checkpointing: {str(run.checkpointing == 'full').lower()}"
        console.print(said if can_be_resumed(setting) else f"{said}; it writes no checkpoints.")
    else:
        console.print("The stage train does not have it: --write gives its config, for a trainer that does.")
    if best.days > YEAR:
        billion = GB / best.tokens_per_second / 86_400
        console.print(f"A billion tokens, as to train a finished model on, take {_time(billion)}.")
    if written is not None:
        console.print(f"Its DeepSpeed config is in {written}.")


def _state_error(wish: Wish, best: Estimate | None) -> None:
    """Say how wrong tokens a second are, and how little is known of such a machine and such a way."""
    from training.plan.published import error, published

    rows = published()
    held_out = error(row for row in rows if row.held_out)
    said = f"Tokens/s are off by {held_out.median:.0%} in the median, by {held_out.worst_tenth:.0%} or less in nine of "
    said += f"ten, over {held_out.rows} published runs of models that nothing was fitted to."
    device = wish.machine.device
    if device.name not in {row.run.machine.device.name for row in rows}:
        said += f" None of them is on {device.title}."
    if best is not None and best.run.strategy.offloads:
        like = [row for row in rows if row.run.strategy.offloads]
        off = max(abs(row.error()) for row in like)
        where = ", ".join(sorted({row.run.machine.device.title for row in like}))
        said += f" {len(like)} published runs offload to the host, on {where}: off by {off:.0%} at most."
        if "nvme" in (best.run.strategy.optimizer, best.run.strategy.weights):
            said += " Of disks there is none: reckoned from their bandwidth."
    console.print(said)


def _fits_exactly(one: Estimate, found: list[Estimate]) -> bool:
    """Return whether the same way fits with moments in 32 bits."""
    way = (one.run.strategy, one.run.checkpointing)
    return any(o.fits and o.run.moment_bits == 32 and (o.run.strategy, o.run.checkpointing) == way for o in found)


def _name(one: Estimate) -> str:
    marks = (" +ck" if one.run.checkpointing == "full" else "") + (" 8-bit" if one.run.moment_bits == 8 else "")
    return one.run.strategy.title + marks


def _machine(machine: Machine) -> str:
    nodes = f"{machine.nodes} nodes of " if machine.nodes > 1 else ""
    disk = f", {_gb(machine.nvme)} GB of disk" if machine.nvme else ""
    return f"{nodes}{machine.devices} × {machine.device.title}, {_gb(machine.host_memory)} GB of host memory{disk}"


def _gb(amount: float) -> str:
    return f"{amount / GB:,.0f}" if amount >= 10 * GB or not amount else f"{amount / GB:.1f}"


def _tokens(count: float) -> str:
    return f"{count / GB:,.3g} billion" if count < 10**12 else f"{count / 10**12:,.3g} trillion"


def _time(days: float) -> str:
    if days >= 2 * YEAR:
        return f"{days / YEAR:,.0f} years"
    return f"{days:,.0f} days" if days >= 10 else f"{days:.1f} days" if days >= 1 else f"{days * 24:.1f} h"


def _short(time: str) -> str:
    number, unit = time.split()
    return f"{number} {unit[0]}"


def _dollars(dollars: float | None) -> str:
    if dollars is None:
        return "?"
    return (
        f"${dollars / 10**6:,.1f}M" if dollars >= 10**6 else f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:.2f}"
    )
