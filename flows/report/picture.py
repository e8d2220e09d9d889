"""`lineage.html`: the chain from crawl to release as a picture, one page that needs nothing else.

Made from the manifests and the run records, so the same files give the same bytes, whether the page is made while the
release is, by `headwater lineage picture` or by `headwater lineage sync`. It stands beside a release, never in it: run
records hold times (docs/decisions/0001).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from flows.history import run_records
from flows.history.chain import Link, Making, link_of, makings, walk
from flows.history.chain import making as making_of
from flows.history.run_stages import what_of
from flows.report import drops
from flows.report.verdict import Verdict, read_verdict
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.errors import InputError
from tasks.contracts.files import METRICS_NAME, REPORT_NAME
from tasks.contracts.manifest import MANIFEST_NAME, chain_order, read_manifest
from tasks.contracts.release import GATE_NAME, LINEAGE_NAME
from tasks.contracts.workspace import state_folder

PICTURE = "lineage.html"

WIDTH = 1000.0
_TEMPLATE = Path(__file__).with_name("lineage.html.j2")
_REASONS_SHOWN = 5
_LANE, _LABELS, _CARD = 16.0, 84.0, 370.0
_CARD_LEAST, _ROW_GAP, _BAR_ROW, _HEAD = 100.0, 30.0, 20.0, 4.0
_BARS_LEFT, _BAR_LABEL, _BAR_NUMBER = 20.0, 190.0, 138.0
_BUS_FROM = 5
"""A stage with at least so many inputs (the release, which names all) gets one line that joins them, not one each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One drop reason: its rule, how many it dropped, its share of what went in, and where its bar is drawn."""

    rule: str
    number: int
    share: float
    y: float
    length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One stage: its place on the page and what the page says of it.

    Attributes:
        making: who made its output, None where no run record here says so.
        what: the same as a phrase, as seen from the run that made the end of the chain.
        more: how many drop reasons are not drawn.
    """

    link: Link
    making: Making | None
    what: str
    y: float
    height: float
    bars: Sequence[Bar]
    more: int

    @property
    def reused(self) -> bool:
        """Whether another run made it."""
        return self.what != "made by this run"

    @property
    def dropped(self) -> int:
        """How many were dropped, for all reasons."""
        return self.link.manifest.counts.in_ - self.link.manifest.counts.out


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A manifest's name in a later manifest: which to which, and the line that shows it, with its label's place."""

    source: str
    target: str
    sha256: str
    path: str
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The chain as it is drawn, in the units of the view box."""

    width: float
    height: float
    left: float
    card: float
    bars: float
    axis: float
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    bus: str = ""
    """The line that joins every stage to the release, which names them all; empty when the end is another stage."""


def write_picture(workspace: Path, output: Path | None = None) -> Path:
    """Write the page for the workspace's release, or for the last stage there is, and return its path.

    Args:
        output: the file; `.headwater/lineage.html` when left out.

    Raises:
        InputError: no stage has run.
    """
    data = workspace / "data"
    end = _end(data)
    listed = run_records.read_records()
    # Up to the record that made it, so that a later run of the same bytes does not change the page.
    places = [n for n, r in enumerate(listed) if r.stage == end.name and r.manifest_sha256 == end.sha256]
    own = making_of(listed[places[-1]]) if places else None
    page = lineage_page(end, data=data, making=own, history=listed[: places[-1]] if places else listed)
    path = output or state_folder() / PICTURE
    write_bytes(path, page.encode())
    return path


def lineage_page(end: Link, *, data: Path, making: Making | None, history: Sequence[run_records.RunRecord]) -> str:
    """Return the page of the chain that ends in one output.

    Args:
        end: usually a release.
        data: the workspace's folder of stage folders.
        making: by which run the end was made; None where no record says so.
        history: the run records before that, oldest first.
    """
    links = {**walk(data, {end.name: end.sha256}), end.name: end}
    makers = makings(links.values(), history)
    if making:
        makers[end.name] = making
    picture = _picture(_nodes(links, makers, making.run if making else ""))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(_TEMPLATE.name).render(
        picture=picture,
        end=end,
        making=making,
        name=_name(end),
        verdict=_verdict(links),
        weights=_weights(links),
        weight_files=_weight_files(links),
        bar_label=_BAR_LABEL,
        bar_room=picture.width - picture.bars - _BAR_LABEL - _BAR_NUMBER,
    )


def _end(data: Path) -> Link:
    made = {path.parent.name: read_manifest(path.parent).inputs for path in data.glob(f"*/{MANIFEST_NAME}")}
    if made:
        return link_of(data / chain_order(made)[-1])
    raise InputError("no stage has run here", where=str(data), fix="`headwater run` runs the pipeline")


def _nodes(links: Mapping[str, Link], makers: Mapping[str, Making], run: str) -> list[Node]:
    # One scale for all: two bars of one length are two equal shares of what their stages took in.
    most = max((share for link in links.values() for _, _, share in drops.ordered(link.manifest)), default=1.0) or 1.0
    nodes, y = [], _HEAD
    for name, link in links.items():
        reasons = drops.ordered(link.manifest)
        shown = reasons[:_REASONS_SHOWN]
        bars = [
            Bar(rule=rule, number=number, share=share, y=y + 6 + _BAR_ROW * place, length=share / most)
            for place, (rule, number, share) in enumerate(shown)
        ]
        more = len(reasons) - len(shown)
        height = max(_CARD_LEAST, 12 + _BAR_ROW * (len(bars) + (more > 0)))
        maker = makers.get(name)
        what = what_of(maker.run if maker else None, run)
        nodes.append(Node(link=link, making=maker, what=what, y=y, height=height, bars=bars, more=more))
        y += height + _ROW_GAP
    return nodes


def _picture(nodes: Sequence[Node]) -> Picture:
    """Lay the stages below each other, with the lines between those that do not follow each other on the left.

    All lines from one stage share a lane: it leaves the card once and branches to each card that names it.
    """
    place = {node.link.name: number for number, node in enumerate(nodes)}
    named = {
        node.link.name: {name: sha for name, sha in node.link.manifest.inputs.items() if name in place}
        for node in nodes
    }
    joined = [name for name, inputs in named.items() if len(inputs) >= _BUS_FROM]
    far: dict[str, list[str]] = {}
    for target, inputs in named.items():
        for source in () if target in joined else inputs:
            if place[target] != place[source] + 1:
                far.setdefault(source, []).append(target)
    # The shortest reach lies nearest to the cards, so that lanes cross as few branches as they can.
    ordered = sorted(far, key=lambda source: (place[far[source][-1]] - place[source], place[source]))
    left = _LANE * (len(ordered) + bool(joined)) + _LABELS
    lanes = {source: left - _LABELS - _LANE * number for number, source in enumerate(ordered)}
    axis = left + 34
    edges = []
    for target, inputs in named.items():
        entries = [source for source in inputs if target in far.get(source, ())]
        for source, sha in inputs.items():
            above, below = nodes[place[source]], nodes[place[target]]
            if place[target] == place[source] + 1:
                y = above.y + above.height
                line, x, label, anchor = f"M{axis:g} {y:g}V{below.y - 1:g}", axis + 12, y + _ROW_GAP / 2 + 4, "start"
            elif source in entries:
                start = above.y + above.height - 22
                end = below.y + 22 + 19 * entries.index(source)
                lane = lanes[source]
                line = f"M{left:g} {start:g}H{lane + 6:g}q-6 0 -6 6V{end - 6:g}q0 6 6 6H{left:g}"
                x, label, anchor = left - 10, end - 5, "end"
            else:
                continue
            edges.append(
                Edge(source=source, target=target, sha256=sha, path=line, label_x=x, label_y=label, anchor=anchor)
            )
    return Picture(
        width=WIDTH,
        height=nodes[-1].y + nodes[-1].height + 6,
        left=left,
        card=_CARD,
        bars=left + _CARD + _BARS_LEFT,
        axis=axis,
        nodes=nodes,
        edges=edges,
        bus=_bus(nodes, joined, left),
    )


def _bus(nodes: Sequence[Node], joined: Sequence[str], left: float) -> str:
    """Return the line along the left edge from each stage to the one that names them all."""
    if not joined:
        return ""
    target = next(node for node in nodes if node.link.name == joined[-1])
    sources = [node for node in nodes if node.link.name in target.link.manifest.inputs]
    x, end = 8.0, target.y + target.height - 22
    if not sources:
        return ""
    teeth = "".join(f"M{x:g} {node.y + node.height - 9:g}H{left:g}" for node in sources)
    return f"{teeth}M{x:g} {sources[0].y + sources[0].height - 9:g}V{end - 6:g}q0 6 6 6H{left:g}"


def _name(end: Link) -> str:
    return str(end.manifest.params.get("name") or f"data/{end.name}")


def _verdict(links: Mapping[str, Link]) -> Verdict | None:
    places = [("release", GATE_NAME), ("gate", REPORT_NAME)]
    for name, report in places:
        link = links.get(name)
        if link and link.folder and (found := read_verdict(link.folder / report)):
            return found
    return None


def _weight_files(links: Mapping[str, Link]) -> list[tuple[str, str]]:
    """Return name and SHA-256 of each file of weights, as the release lists them, or training's output does."""
    for name in ("release", "train"):
        if link := links.get(name):
            return [
                (Path(shard.name).name, shard.sha256)
                for shard in link.manifest.shards
                if shard.name.endswith(".safetensors")
            ]
    return []


def _weights(links: Mapping[str, Link]) -> str | None:
    """Return the hash that training wrote of the weights, as the release names it, or training's own figures do."""
    for name, file in (("release", LINEAGE_NAME), ("train", METRICS_NAME)):
        link = links.get(name)
        if link and link.folder and (link.folder / file).is_file():
            found = json.loads((link.folder / file).read_bytes()).get("weights_sha256")
            if found:
                return str(found)
    return None
