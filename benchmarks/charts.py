"""The benchmarks' charts, by matplotlib, which is optional: benchmarks/requirements-charts.txt has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, NamedTuple, Sequence

_BLUE, _LIGHT, _RED, _GREY = "#2a6592", "#5a9fc8", "#d9512c", "#a0a0a0"


class Point(NamedTuple):
    """One set of options: milliseconds, AP, what it is called, and whether it is a preset."""

    milliseconds: float
    score: float
    label: str
    preset: bool


class Load(NamedTuple):
    """A number of workers on one broker: jobs a second, those of nets alone, and median and p99 of the wait in ms."""

    workers: int
    rate: float
    ideal: float
    wait_ms: float
    worst_ms: float


def frontier(points: Sequence[Point]) -> List[Point]:
    """Those than which nothing that takes less time is as accurate, by time."""
    best: List[Point] = []
    for point in sorted(points, key=lambda point: (point.milliseconds, -point.score)):
        if not best or point.score > best[-1].score:
            best.append(point)
    return best


def need_matplotlib() -> Any:
    """matplotlib's pyplot, which draws into files; ends the program with a sentence if it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit(
            "matplotlib, which draws the chart, is not installed; "
            "run: python -m pip install -r benchmarks/requirements-charts.txt"
        ) from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def accuracy(points: Sequence[Point], path: Path) -> None:
    """Write a chart of AP against milliseconds: each set a dot, the presets large, a line along the frontier."""
    pyplot = need_matplotlib()
    figure, axes = pyplot.subplots(figsize=(9.6, 5.6))
    worth = frontier(points)
    axes.plot([point.milliseconds for point in worth], [point.score for point in worth], color=_LIGHT, linewidth=2)
    for point in points:
        style = {"color": _RED, "markersize": 12} if point.preset else {"color": _BLUE, "markersize": 6}
        axes.plot(point.milliseconds, point.score, "o", **style)
        if point.preset or point in worth:
            _label(axes, point)
    scores = [point.score for point in points]
    axes.set_ylim(min(scores) - 0.01, max(scores) + 0.06)  # above, there is room for names
    axes.margins(x=0.09)
    axes.set(xscale="log", xlabel="milliseconds of one core for an image", ylabel="AP")
    ticks = [tick for tick in (20, 50, 100, 200, 500, 1000, 2000, 5000) if _within(axes, tick)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    _finish(pyplot, figure, [axes], path)


def _label(axes: Any, point: Point) -> None:
    """Write beside a point, up and to the left, where no other is: all that are named lie along the frontier."""
    axes.annotate(
        point.label,
        (point.milliseconds, point.score),
        xytext=(-6, 9) if point.preset else (-3, 3),
        textcoords="offset points",
        rotation=-25,
        rotation_mode="anchor",
        horizontalalignment="right",
        weight="bold" if point.preset else "normal",
        size="medium" if point.preset else "small",
    )


def _within(axes: Any, value: float) -> bool:
    low, high = axes.get_xlim()
    return bool(low <= value <= high)


def fleet(loads: Sequence[Load], slow_ms: float, path: Path) -> None:
    """Write two charts: jobs a second, and waits in milliseconds, against the number of workers.

    Args:
        slow_ms: milliseconds that each pass of a net takes.
    """
    pyplot = need_matplotlib()
    figure, (rates, waits) = pyplot.subplots(1, 2, figsize=(10.8, 5.2))
    workers = [load.workers for load in loads]
    _curve(rates, workers, [load.ideal for load in loads], _GREY, "ideal", above=True)
    _curve(rates, workers, [load.rate for load in loads], _RED, "measured")
    rates.set_title("jobs a second through one broker")
    rates.set_yscale("log", base=2)
    rates.margins(y=0.1)
    _curve(waits, workers, [load.worst_ms for load in loads], _RED, "p99", above=True)
    _curve(waits, workers, [load.wait_ms for load in loads], _BLUE, "median")
    waits.set(title="wait in ms at 70 % load", ylim=(0, 1.2 * max(10.0, *(load.worst_ms for load in loads))))
    for axes in (rates, waits):
        axes.set_xscale("log", base=2)
        axes.set_xticks(workers, [str(count) for count in workers])
        axes.set_xlabel(f"workers, one slot each, {slow_ms:g} ms a pass")
        axes.legend(frameon=False)
    rates.yaxis.set_major_formatter("{x:g}")
    _finish(pyplot, figure, [rates, waits], path)


def _curve(
    axes: Any, workers: Sequence[int], values: Sequence[float], colour: str, name: str, *, above: bool = False
) -> None:
    axes.plot(workers, values, "o-", color=colour, linewidth=2, label=name)
    for count, value in zip(workers, values):
        style = {"textcoords": "offset points", "horizontalalignment": "center", "size": "small"}
        axes.annotate(f"{value:.3g}", (count, value), xytext=(0, 7 if above else -15), color=colour, **style)


def _finish(pyplot: Any, figure: Any, panels: Sequence[Any], path: Path) -> None:
    for axes in panels:
        axes.grid(color="#e1e1e1")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
