"""Which waiting inputs go together. Pure policy: no clock, no socket, no net."""

from __future__ import annotations

from typing import Callable, Dict, Generic, List, NamedTuple, Optional, Tuple, TypeVar

Item = TypeVar("Item")
#: What inputs must have in common to share a pass: the net, and the height and width in pixels that they have in it.
Shape = Tuple[int, ...]


class _Waiting(NamedTuple):
    item: object
    inputs: int
    since: float


class Batcher(Generic[Item]):
    """Inputs of equal shape share a pass of the net, the longest-waiting first.

    A group of one shape goes as soon as it is full, or nobody else is on the way, or its oldest input has waited for
    `wait_s`; of several such groups, the one whose oldest input came first. So nobody waits for company beyond the
    bound, order within a shape is kept, and no shape can starve another.

    Args:
        max_batch: most inputs in one pass; an item of more inputs goes alone.
        wait_s: longest wait for company, in seconds.
    """

    def __init__(self, max_batch: int, wait_s: float) -> None:
        if max_batch < 1 or wait_s < 0:
            raise ValueError(f"max_batch must be at least 1 and wait_s at least 0, got {max_batch} and {wait_s}")
        self._max_batch, self._wait_s = max_batch, wait_s
        self._groups: Dict[Shape, List[_Waiting]] = {}

    def __len__(self) -> int:
        """Waiting items."""
        return sum(map(len, self._groups.values()))

    def add(self, item: Item, shape: Shape, inputs: int, now: float) -> None:
        """Let `item`, of `inputs` inputs of `shape`, wait from `now` on (seconds on any clock)."""
        self._groups.setdefault(shape, []).append(_Waiting(item, inputs, now))

    def discard(self, unwanted: Callable[[Item], bool]) -> None:
        """Forget the items that are `unwanted`, as when their sender has died."""
        for shape, group in list(self._groups.items()):
            self._keep(shape, [one for one in group if not unwanted(one.item)])  # type: ignore[arg-type]

    def take(self, now: float, company: bool, full: bool = False) -> List[Item]:
        """The items of the next pass, removed from those that wait; none if waiting is better.

        Args:
            company: whether anybody else is on the way.
            full: whether a pass with room for more waits, as while the device works: what comes meanwhile may join it.
        """
        ready = [shape for shape, group in self._groups.items() if not company or self._due(group) <= now]
        if not ready:
            return []
        shape = min(ready, key=lambda one: self._groups[one][0].since)
        group = self._groups[shape]
        if full and not self._is_full(group):
            return []
        count = self._fitting(group)
        self._keep(shape, group[count:])
        return [one.item for one in group[:count]]  # type: ignore[misc]

    def next_due(self) -> Optional[float]:
        """The time at which something must go even if company is on the way; None if nothing waits."""
        return min(map(self._due, self._groups.values()), default=None)

    def _due(self, group: List[_Waiting]) -> float:
        return group[0].since if self._is_full(group) else group[0].since + self._wait_s

    def _is_full(self, group: List[_Waiting]) -> bool:
        return self._fitting(group) < len(group) or sum(one.inputs for one in group) >= self._max_batch

    def _fitting(self, group: List[_Waiting]) -> int:
        """How many items from the front fit into one pass; at least one."""
        inputs = 0
        for count, one in enumerate(group):
            inputs += one.inputs
            if inputs > self._max_batch:
                return max(1, count)
        return len(group)

    def _keep(self, shape: Shape, group: List[_Waiting]) -> None:
        if group:
            self._groups[shape] = group
        else:
            self._groups.pop(shape, None)
