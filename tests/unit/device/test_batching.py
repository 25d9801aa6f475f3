"""Nobody waits beyond the bound, nobody starves, order within a shape is kept: for any arrival of inputs."""

from __future__ import annotations

from typing import Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.device.batching import Batcher

SMALL, LARGE = (368, 496), (368, 656)
WAIT_S = 2.0


def test_inputs_of_one_shape_go_together_when_nobody_else_is_coming() -> None:
    batcher: Batcher[str] = Batcher(4, WAIT_S)
    for number, item in enumerate("abc"):
        batcher.add(item, SMALL, 1, float(number))
    assert batcher.take(3.0, company=False) == ["a", "b", "c"]
    assert len(batcher) == 0
    assert batcher.take(3.0, company=False) == []
    assert batcher.next_due() is None


def test_company_is_waited_for_up_to_the_bound() -> None:
    batcher: Batcher[str] = Batcher(4, WAIT_S)
    batcher.add("a", SMALL, 1, 10.0)
    assert batcher.take(10.0, company=True) == []
    assert batcher.next_due() == 12.0
    assert batcher.take(11.9, company=True) == []
    assert batcher.take(12.0, company=True) == ["a"]


def test_a_full_batch_waits_for_nobody() -> None:
    batcher: Batcher[str] = Batcher(2, WAIT_S)
    for item in "abc":
        batcher.add(item, SMALL, 1, 0.0)
    assert batcher.take(0.0, company=True) == ["a", "b"]
    assert batcher.take(0.0, company=True) == []


def test_where_only_a_full_batch_may_go_the_oldest_still_goes_first() -> None:
    batcher: Batcher[str] = Batcher(2, WAIT_S)
    batcher.add("a", LARGE, 1, 0.0)
    assert batcher.take(5.0, company=False, full=True) == []
    batcher.add("b", SMALL, 1, 1.0)
    batcher.add("c", SMALL, 1, 1.0)
    assert batcher.take(1.5, company=True, full=True) == ["b", "c"]  # "a" waits for company anyway
    batcher.add("d", SMALL, 2, 1.5)
    assert batcher.take(5.0, company=True, full=True) == []  # "a" is next, and not full
    batcher.add("e", LARGE, 1, 5.0)
    assert batcher.take(5.0, company=True, full=True) == ["a", "e"]


def test_shapes_are_not_mixed_and_the_oldest_goes_first() -> None:
    batcher: Batcher[str] = Batcher(4, WAIT_S)
    batcher.add("large", LARGE, 1, 0.0)
    batcher.add("small", SMALL, 1, 1.0)
    assert batcher.take(1.0, company=False) == ["large"]
    assert batcher.take(1.0, company=False) == ["small"]


def test_an_item_of_more_inputs_than_a_batch_goes_alone() -> None:
    batcher: Batcher[str] = Batcher(2, WAIT_S)
    batcher.add("five", SMALL, 5, 0.0)
    batcher.add("one", SMALL, 1, 0.0)
    assert batcher.take(0.0, company=True) == ["five"]
    assert batcher.take(0.0, company=False) == ["one"]


def test_the_dead_are_forgotten() -> None:
    batcher: Batcher[str] = Batcher(2, WAIT_S)
    batcher.add("dead", SMALL, 1, 0.0)
    batcher.add("alive", SMALL, 1, 0.0)
    batcher.discard(lambda item: item == "dead")
    assert batcher.take(0.0, company=False) == ["alive"]


@pytest.mark.parametrize(("max_batch", "wait_s"), [(0, 1.0), (1, -1.0)])
def test_a_policy_that_makes_no_sense_is_refused(max_batch: int, wait_s: float) -> None:
    with pytest.raises(ValueError, match="max_batch"):
        Batcher(max_batch, wait_s)


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([SMALL, LARGE, (8, 8)]), st.integers(1, 3)), min_size=1, max_size=40
)


@given(arrivals=ARRIVALS, max_batch=st.integers(1, 6), run_s=st.floats(0, 5), company=st.booleans())
def test_any_arrival(
    arrivals: List[Tuple[float, Tuple[int, int], int]], max_batch: int, run_s: float, company: bool
) -> None:
    """Simulates a net that takes `run_s` a pass while inputs arrive at any pace."""
    batcher: Batcher[int] = Batcher(max_batch, WAIT_S)
    clock, pending = 0.0, []
    for pause, shape, inputs in arrivals:
        clock += pause
        pending.append((clock, shape, inputs))
    arrived = dict(enumerate(pending))
    went: Dict[int, float] = {}
    order: List[int] = []
    now, coming = 0.0, list(arrived)
    while len(went) < len(arrived):
        while coming and arrived[coming[0]][0] <= now:
            number = coming.pop(0)
            batcher.add(number, arrived[number][1], arrived[number][2], arrived[number][0])
        batch = batcher.take(now, company)
        if batch:
            shapes = {arrived[number][1] for number in batch}
            assert len(shapes) == 1
            assert len(batch) == 1 or sum(arrived[number][2] for number in batch) <= max_batch
            went.update(dict.fromkeys(batch, now))
            order += batch
            now += run_s
            continue
        due = batcher.next_due()
        assert not (len(batcher) and not company), "nobody is coming, and still something waits"
        steps = [time for time in (due, arrived[coming[0]][0] if coming else None) if time is not None]
        now = max(now, min(steps))
    assert sorted(order) == sorted(arrived)
    for shape in {shape for _, shape, _ in pending}:
        of_shape = [number for number in order if arrived[number][1] == shape]
        assert of_shape == sorted(of_shape)
    for number, time in went.items():
        # Beyond its bound an input waits only for passes that hold inputs older than itself, or that had begun.
        older = [n for n in went if went[n] < time and arrived[n][0] <= arrived[number][0]]
        assert (
            time - arrived[number][0] <= WAIT_S + run_s * (len(older) + 1 + _full_before(went, arrived, number)) + 1e-9
        )


def _full_before(went: Dict[int, float], arrived: Dict[int, Tuple[float, Tuple[int, int], int]], number: int) -> int:
    """Passes of younger inputs that went within the bound of `number`, as a full batch may."""
    arrival = arrived[number][0]
    return len({time for n, time in went.items() if arrived[n][0] > arrival and time <= arrival + WAIT_S})
