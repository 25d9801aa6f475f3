"""What the net process does with a batch: what fails together is tried apart, and what cannot fit alone fails alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from tests.support.net_server import POISON, FakeNet, OverlappingNet, Running
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


#: Two full batches, and three inputs more.
MANY = [(20 + i, 120 + i) for i in range(19)]
ANSWERS = [(first, first, second, second) for first, second in MANY]


@pytest.fixture
def overlapping(run: Callable[..., Running]) -> Callable[..., Any]:
    """Ask a net whose passes overlap; all inputs have been sent when its first pass is launched: (answers, net,
    running)."""

    def ask(count: int, *before: Any, numbers: Any = (), **options: Any) -> Any:
        running: List[Running] = []
        net = OverlappingNet(lambda: running[0].await_inputs(count - 8), *before, **options)
        running.append(run(net))
        return running[0].ask(MANY[:count], numbers=numbers), net, running[0]

    return ask


def test_a_full_batch_is_launched_before_the_one_that_runs_is_answered(overlapping: Callable[..., Any]) -> None:
    answers, net, running = overlapping(16)
    assert answers == ANSWERS[:16]
    assert net.events == [("launch", 8), ("launch", 8), ("wait", 8), ("wait", 8)]
    assert (running.board.net.batches, running.board.net.inputs) == (2, 16)


def test_one_that_is_not_full_waits_for_what_comes_meanwhile(overlapping: Callable[..., Any]) -> None:
    answers, net, _ = overlapping(19)
    assert answers == ANSWERS
    assert net.events == [("launch", 8), ("launch", 8), ("wait", 8), ("wait", 8), ("launch", 3), ("wait", 3)]


def test_a_batch_that_cannot_be_launched_leaves_the_one_before_it_alone(overlapping: Callable[..., Any]) -> None:
    def full() -> None:
        raise DeviceOutOfMemory("full")

    answers, net, running = overlapping(16, full)
    assert answers == ANSWERS[:16]
    assert net.events[:3] == [("launch", 8), ("launch", 8), ("wait", 8)]  # answered before halves are tried
    assert net.events[3:] == [("launch", 4), ("wait", 4)] * 2
    assert running.board.net.out_of_memory == 1


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_while_the_device_works_is_tried_in_halves(failing: int, overlapping: Callable[..., Any]) -> None:
    answers, net, running = overlapping(16, breaks=[None] * failing + [RuntimeError("no luck")])
    assert answers == ANSWERS[:16]
    assert sorted(count for event, count in net.events if event == "wait") == [4, 4, 8, 8]
    assert running.board.net.inputs == 16


def test_a_device_that_breaks_fails_all_that_is_in_flight(overlapping: Callable[..., Any]) -> None:
    answers, net, running = overlapping(16, breaks=[DeviceLost("It does not work any more.")])
    assert net.events == [("launch", 8), ("launch", 8), ("wait", 8)]
    assert [str(answer) for answer in answers] == ["It does not work any more."] * 16
    assert running.lost


def test_a_launch_that_breaks_the_device_fails_all_that_is_in_flight(overlapping: Callable[..., Any]) -> None:
    def broken() -> None:
        raise DeviceLost("It does not work any more.")

    answers, _, running = overlapping(16, broken)
    assert [str(answer) for answer in answers] == ["It does not work any more."] * 16
    assert running.lost


def test_another_net_is_not_loaded_while_the_device_works(overlapping: Callable[..., Any]) -> None:
    answers, net, _ = overlapping(16, numbers=[0] * 8 + [1] * 8)
    assert sorted(answers) == ANSWERS[:16]
    # Whichever of the two came first.
    between = net.events.index(("wait", 8))
    assert net.events[between - 1] == ("launch", 8)
    assert ("launch", 8) in net.events[between + 1 :]
    assert net.events.count(("launch", 8)) == 2


def test_what_is_in_flight_is_answered_when_the_parent_says_stop(run: Callable[..., Running]) -> None:
    running: List[Running] = []
    net = OverlappingNet(lambda: running[0].end())
    running.append(run(net))
    assert running[0].ask(MANY[:8]) == ANSWERS[:8]
    assert net.events == [("launch", 8), ("wait", 8)]
