"""The options that several commands have."""

from __future__ import annotations

from typing import Any, Callable, Optional, Tuple

import click

from worker.contract import PRESETS


def _numbers(context: Any, parameter: Any, text: Optional[str]) -> Optional[Tuple[float, ...]]:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,0.5") from None


_ESTIMATION = (
    click.option(
        "--preset", type=click.Choice(sorted(PRESETS)), help="Options by name; the options below override it."
    ),
    click.option("--target-height", type=int, help="Height of the net's input.  [default: 368]"),
    click.option("--max-width", type=int, help="Cap on the net input's width."),
    click.option("--scales", callback=_numbers, help="Factors on the height, e.g. 1,0.5.  [default: 1]"),
    click.option("--merge", type=click.Choice(["avg", "max"]), help="How maps of several scales are merged."),
    click.option("--flip/--no-flip", default=None, help="Also look at the mirrored image."),
    click.option(
        "--refine",
        is_flag=False,
        flag_value="once",
        type=click.Choice(["off", "once", "twice"]),
        help="Look again at people who are small: once, also where no word follows (before a path: --refine=once), or "
        "at two scales.  [default: off]",
    ),
)
local = click.option("--local", is_flag=True, help="Run a Redis and a worker here for the duration.")
timeout = click.option(
    "--timeout", type=float, default=600, show_default=True, help="Seconds to wait without any answer."
)


_FILM = (
    click.option("--video", is_flag=True, help="All PATHs are films, whatever they are called; GIF and WebP, too."),
    click.option("--every", type=int, help="Of films: look at each n-th frame.  [default: 1]"),
    click.option("--start", "start_s", type=float, help="Of films: from here on, in seconds."),
    click.option("--end", "end_s", type=float, help="Of films: up to here, in seconds."),
    click.option("--max-frames", type=int, help="Of films: look at so many frames at the most."),
    click.option(
        "--format",
        "formats",
        multiple=True,
        type=click.Choice(["openpose", "coco", "csv", "numpy"]),
        help="Of films: also write the keypoints so; may be given several times.",
    ),
)


def film(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that films have alone."""
    for option in reversed(_FILM):
        command = option(command)
    return command


def estimation(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a job that decide what is found."""
    for option in reversed(_ESTIMATION):
        command = option(command)
    return command
