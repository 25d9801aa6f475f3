"""What the net process does with a batch: what fails together is tried apart, and what cannot fit alone fails alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from tests.support.net_server import POISON, FakeNet, Running
from worker.errors import DeviceLost, DeviceOutOfMemory


@pytest.fixture
def run(thin_net: Path) -> Iterator[Callable[..., Running]]:
    started: List[Running] = []

    def start(net: FakeNet, **options: Any) -> Running:
        started.append(Running(thin_net, net, **options))
        return started[-1]

    yield start
    for running in started:
        running.stop()


PIXELS = [(10 + i, 100 + i) for i in (0, 1, 2, 4, 5, 6)]
EXPECTED = [(first, first, second, second) for first, second in PIXELS]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(run: Callable[..., Running]) -> None:
    net = FakeNet(fits=2)
    running = run(net)
    assert running.ask(PIXELS) == EXPECTED
    assert net.passes == [6, 3, 1, 2, 3, 1, 2]
    assert running.board.net.out_of_memory == 3
    assert (running.board.net.batches, running.board.net.inputs) == (4, 6)


def test_only_an_input_that_does_not_fit_alone_fails(run: Callable[..., Running]) -> None:
    answers = run(FakeNet(fits=0)).ask(PIXELS[:2])
    assert [type(answer) for answer in answers] == [DeviceOutOfMemory] * 2


def test_other_nets_leave_for_an_input_that_does_not_fit_beside_them(run: Callable[..., Running]) -> None:
    running = run(FakeNet(fits=0), spare=2)
    assert running.ask(PIXELS[:1]) == EXPECTED[:1]


def test_one_bad_input_fails_alone(run: Callable[..., Running]) -> None:
    answers = run(FakeNet()).ask([*PIXELS[:2], (POISON, 0), *PIXELS[2:]])
    assert isinstance(answers.pop(2), DeviceLost)
    assert answers == EXPECTED


def test_maps_travel_as_float16_where_the_net_computes_so(run: Callable[..., Running]) -> None:
    assert run(FakeNet(), half=True).ask(PIXELS) == EXPECTED


def test_inputs_of_nearby_widths_share_a_pass_on_a_canvas(run: Callable[..., Running]) -> None:
    widths = (72, 80, 128, 104, 120, 136)
    alone, shared = FakeNet(), FakeNet()
    assert run(alone).ask(PIXELS, widths) == EXPECTED
    assert run(shared, step=64).ask(PIXELS, widths) == EXPECTED
    assert (alone.passes, sorted(shared.passes)) == ([1] * 6, [1, 5])
