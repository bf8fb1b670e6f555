"""What the machine screen says, as styled text. Colour never says anything that a sign or a word does not say too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from clinic_ai.control.machine_views import GpuPast, GpuView, Line, MachineView, TargetRow
from clinic_ai.control.views import ChildRow, InboxRow
from clinic_ai.tui.graphs import bar, graph
from clinic_ai.tui.words import age

MIB = 1 << 20
_NAME = 12
_NOW = 18
_EXTREME = 12
_GAP = 1
_NARROWEST = 10
_COLD_C, _HOT_C, _TOO_HOT_C = 20.0, 100.0, 90.0
"""Where the graph of a temperature begins and ends, and from where it is called hot."""
SPANS = {"hour": "last hour", "day": "last day"}


def size(count: float) -> str:
    """Return a number of bytes in one unit, such as ``12 MB``."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{max(count, 0):.0f} B"


def _mib(count: float) -> str:
    return size(count * MIB)


def _percent(share: float) -> str:
    return f"{share:.0f} %"


def _degrees(celsius: float) -> str:
    return f"{celsius:.0f} °C"


def _watts(watts: float) -> str:
    return f"{watts:.0f} W"


@dataclass(frozen=True)
class _Figure:
    """One graph: what it is now, its line, what its foot and its top stand for, and how its values are said."""

    name: str
    now: float | None
    line: Line
    high: float
    words: Callable[[float], str]
    of: str = ""
    low: float = 0.0
    lowest: bool = False
    """Whether the lowest value is what matters, as of free space."""
    alarm: bool = False

    @property
    def measured(self) -> bool:
        return self.now is not None or any(value is not None for value in self.line)


# ---------------------------------------------------------------- the machine and its graphs


def graphs_text(view: MachineView, width: int, rows: int) -> Text:
    """Return what the machine is, how it fares, and its history in graphs of ``rows`` lines."""
    text = Text(overflow="ellipsis")
    total = "" if view.now is None else f", {_mib(view.now.memory_mb)} memory"
    text.append(f"{view.host}\n", style="bold")
    text.append(f"{view.processor or 'Processor without a name'}, {view.cores} cores{total}\n{view.system}\n")
    if view.now is not None and view.now.on_mains is False:
        text.append("▲ It runs on its battery.\n", style="bold yellow")
    if view.problem:
        text.append(f"▲ {view.problem} {view.remedy}\n", style="bold red")
    elif view.now is None:
        text.append("The first reading is being made.\n")
    _gpu_line(text, view)
    figures = list(_figures(view))
    text.append(_heads(SPANS[view.past.span], width) + "\n", style="bold")
    for figure in figures:
        if figure.measured:
            _graph(text, figure, width, rows)
    missing = [figure.name for figure in figures if not figure.measured]
    if missing and view.now is not None:
        text.append(f"Not measured here: {', '.join(missing).lower()}.\n", style="italic")
    text.rstrip()
    return text


def _gpu_line(text: Text, view: MachineView) -> None:
    if view.now is None:
        return
    for gpu in view.now.gpus:
        text.append(f"GPU {gpu.index}: {gpu.name}\n")
    if view.now.gpus:
        return
    if view.gpu_problem:
        text.append(f"▲ GPU: none can be used. {view.gpu_problem}\n", style="bold yellow")
    else:
        text.append("GPU: there is none here; models compute on the processor.\n")


def _heads(span: str, width: int) -> str:
    room = _graph_width(width)
    head = f"{span}, now on the right"
    return f"{'':{_NAME}} {'now':{_NOW}} {head if len(head) <= room else span:{room}} {'most / least':>{_EXTREME}}"


def _graph_width(width: int) -> int:
    return max(width - _NAME - _NOW - _EXTREME - 3 * _GAP, _NARROWEST)


def _graph(text: Text, figure: _Figure, width: int, rows: int) -> None:
    drawn = graph(figure.line, _graph_width(width), low=figure.low, high=figure.high, rows=rows)
    now = "–" if figure.now is None else figure.words(figure.now) + figure.of
    known = [value for value in figure.line if value is not None]
    extreme = "" if not known else figure.words(min(known) if figure.lowest else max(known))
    sign = "▲ " if figure.alarm else ""
    for number, line in enumerate(drawn):
        last = number == len(drawn) - 1
        text.append(f"{figure.name if last else '':{_NAME}.{_NAME}} ")
        text.append(f"{sign + now if last else '':{_NOW}} ", style="bold red" if figure.alarm else "bold")
        text.append(line, style="red" if figure.alarm else "cyan")
        text.append(f" {extreme if last else '':>{_EXTREME}}\n")


def _figures(view: MachineView) -> Iterator[_Figure]:
    now, past = view.now, view.past
    total = 0 if now is None else now.memory_mb
    used = None if now is None else float(now.memory_mb - now.memory_available_mb)
    yield _Figure("Processor", None if now is None else now.cpu_percent, past.cpu_percent, 100, _percent)
    yield _Figure("Memory", used, past.memory_mb, total, _mib, of=f" of {_mib(total)}" if total else "")
    children = sum(child.resident_bytes for child in view.children) / MIB
    yield _Figure("of workers", children if now is not None else None, past.children_mb, total, _mib)
    yield _temperature("Temperature", None if now is None else now.temperature_c, past.temperature_c)
    yield _power("Power", None if now is None else now.power_w, past.power_w, None)
    yield from _gpu_figures(view)
    disk = next(iter(view.disks), None)
    yield _Figure(
        "Disk free",
        None if now is None else float(now.disk_free_mb),
        past.disk_free_mb,
        0 if disk is None else disk.total_bytes / MIB,
        _mib,
        lowest=True,
        alarm=disk is not None and disk.short,
    )


def _gpu_figures(view: MachineView) -> Iterator[_Figure]:
    lines = {gpu.index: gpu for gpu in view.past.gpus}
    for gpu in () if view.now is None else view.now.gpus:
        yield from _of_gpu(gpu, lines.get(gpu.index))


def _of_gpu(gpu: GpuView, past: GpuPast | None) -> Iterator[_Figure]:
    name = f"GPU {gpu.index}"
    if past is None:
        past = GpuPast(index=gpu.index, use_percent=(), memory_mb=(), temperature_c=(), power_w=())
    yield _Figure(name, gpu.use_percent, past.use_percent, 100, _percent)
    yield _Figure(
        f"{name} memory",
        float(gpu.memory_used_mb),
        past.memory_mb,
        gpu.memory_mb,
        _mib,
        of=f" of {_mib(gpu.memory_mb)}",
    )
    yield _temperature(f"{name} °C", gpu.temperature_c, past.temperature_c)
    limit = "" if gpu.power_limit_w is None else f" of {_watts(gpu.power_limit_w)}"
    yield _power(f"{name} power", gpu.power_w, past.power_w, gpu.power_limit_w, of=limit)


def _temperature(name: str, now: float | None, line: Line) -> _Figure:
    hot = now is not None and now >= _TOO_HOT_C
    return _Figure(name, now, line, _HOT_C, _degrees, of=" hot" if hot else "", low=_COLD_C, alarm=hot)


def _power(name: str, now: float | None, line: Line, limit: float | None, of: str = "") -> _Figure:
    most = max((value for value in line if value is not None), default=0.0)
    return _Figure(name, now, line, max(limit or 0.0, most, 1.0), _watts, of=of)


# ---------------------------------------------------------------- workers, disks, links


def workers_text(view: MachineView, width: int) -> Text:
    """Return who takes how much memory, the daemon first, then its children by size."""
    total = 0 if view.now is None else view.now.memory_mb * MIB
    rows = [("daemon", "", view.daemon_resident_bytes)]
    rows += [
        (child.name, _what_a_child_does(child), child.resident_bytes)
        for child in sorted(view.children, key=lambda child: (-child.resident_bytes, child.pid))
    ]
    name_width = min(max(len(name) for name, _, _ in rows), 18)
    bar_width = max(min(width - name_width - 42, 24), 4)
    text = Text(no_wrap=True, overflow="ellipsis")
    for name, doing, resident in rows:
        text.append(f"{name:{name_width}.{name_width}} {size(resident):>7} ")
        text.append(bar(resident / total, bar_width) if total else "", style="cyan")
        text.append(f" {doing}\n")
    if not view.children:
        text.append("No worker runs; they start when there is work.\n")
    text.rstrip()
    return text


def _what_a_child_does(child: ChildRow) -> str:
    return f"{'busy' if child.busy else 'idle'}, {age(child.age_s)} old, pid {child.pid}"


def disk_text(view: MachineView, width: int) -> Text:
    """Return the file systems of the appliance and what is kept free."""
    text = Text()
    if view.disk_waiting:
        text.append(f"▲ {view.disk_waiting}\n", style="bold red")
    for disk in view.disks:
        taken = 1 - disk.free_bytes / disk.total_bytes if disk.total_bytes else 0.0
        text.append("▲ " if disk.short else "● ", style="bold red" if disk.short else "green")
        text.append(f"{size(disk.free_bytes)} free of {size(disk.total_bytes)} ")
        text.append(bar(taken, max(min(width - 50, 24), 8)), style="cyan")
        text.append(f" {_percent(100 * taken)} full\n  {disk.path}: {', '.join(disk.names)}\n")
        if disk.short:
            text.append("  Less is free than is kept for what comes in.\n", style="bold red")
    text.append(f"{size(view.disk_reserve_bytes)} are kept free (disk.reserve_mb).\n")
    text.rstrip()
    return text


def links_text(view: MachineView, now: float) -> Text:
    """Return how the inboxes, the receiver and the targets of results stand."""
    text = Text()
    for inbox in view.inboxes:
        _inbox(text, inbox, now)
    _network(text, view)
    for target in view.targets:
        _target(text, target, now)
    if not view.targets:
        text.append("○ Nothing was delivered yet.\n")
    text.rstrip()
    return text


def _inbox(text: Text, inbox: InboxRow, now: float) -> None:
    sign, style = ("● ", "green") if inbox.online else ("✗ ", "bold red")
    text.append(sign, style=style)
    text.append(f"inbox {inbox.name} ")
    text.append("online" if inbox.online else "offline", style=style)
    if inbox.waiting:
        since = "" if inbox.oldest_at is None else f", the oldest for {age(now - inbox.oldest_at)}"
        text.append(f", {_count(inbox.waiting, 'file')} waiting{since}")
    text.append(f"\n  {inbox.path}\n")
    for words in filter(None, (inbox.sentence, inbox.remedy)):
        text.append(f"  {words}\n", style="" if inbox.online else "bold red")


def _network(text: Text, view: MachineView) -> None:
    network = view.network
    if not network.enabled:
        text.append("○ network receiver off (network.enabled)\n")
        return
    sign, style = ("● ", "green") if network.listening else ("✗ ", "bold red")
    text.append(sign, style=style)
    text.append(f"network receiver: {network.sentence}\n", style="" if network.listening else "bold red")
    text.append(
        f"  {_count(network.open, 'association')} open; {_count(network.stored, 'object')} received and "
        f"{network.refused} refused since the start\n"
    )
    for peer in view.peers:
        text.append(f"  may send: {peer.name} (AE title {peer.ae_title}, from {peer.host})\n")
    if not view.peers:
        text.append("  ▲ Nobody may send: there is no [[network.peer]] in clinic.toml.\n", style="bold yellow")


def _target(text: Text, target: TargetRow, now: float) -> None:
    failing = bool(target.error)
    sign, style = ("✗ ", "bold red") if failing else ("● ", "green")
    text.append(sign, style=style)
    text.append(f"results to {target.target}: {_last(target, now)}\n", style="bold red" if failing else "")
    if target.place:
        text.append(f"  {target.place}\n")
    if failing:
        text.append(f"  {target.error}\n", style="bold red")
    if target.waiting:
        since = "" if target.waiting_since is None else f", the oldest for {age(now - target.waiting_since)}"
        text.append(f"  {_count(target.waiting, 'delivery', 'deliveries')} waiting{since}\n")


def _last(target: TargetRow, now: float) -> str:
    if not target.state:
        return "none tried yet"
    if target.error:
        return f"failing, {_count(target.attempts, 'attempt')} so far"
    if target.ended_at is None:
        return f"the last one is {target.state}"
    day = time.localtime(target.ended_at)[:3] == time.localtime(now)[:3]
    at = time.strftime("%H:%M:%S" if day else "%Y-%m-%d %H:%M", time.localtime(target.ended_at))
    return f"the last one is {target.state}, {at}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def plain(texts: Sequence[Text]) -> str:
    """Return texts as one, for the clipboard."""
    return "\n\n".join(text.plain for text in texts)
