"""What a worker's parent holds: its device, its net process, and a thread that looks after both and after the slots."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from functools import partial
from typing import Callable, Dict, NamedTuple, Optional

from worker.children import Rounds
from worker.device.board import Board, SlotRow, now
from worker.device.gpus import MemoryWatch
from worker.device.net_process import NetProcess
from worker.device.pin import own_slots, take
from worker.errors import DeviceLost, ImageTooLarge, JobTooLarge, PermanentError
from worker.observe.heart import Heart
from worker.observe.metrics import Exporter, resident_bytes
from worker.process.ready import Ready
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: By how much slots beside a GPU are nicer than the net process.
_SLOT_NICENESS = 5
#: Seconds between two looks at the net process and the slots: what decodes a bomb fills 2 GB in a second.
_LOOK_S = 0.1
#: A slot that gives no sign of life for so long is frozen; it is killed, and the pool replaces it.
FROZEN_S = 30.0


class Killed(NamedTuple):
    """Why a slot was killed from here, and what its job ends in; None: the job is tried again."""

    why: str
    error: Optional[PermanentError] = None


class Parent:
    """One worker's parent process.

    Args:
        name: the worker's, ``gpu3@host``.

    Raises:
        SettingsError: there is no such device, or another worker owns it.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings, self.name = settings, name
        self.device, self._claim = take(settings, name)
        self.slots = own_slots(settings, self.device)
        self.board = Board.create()
        self.host: Optional[NetProcess] = None
        if not settings.inline:
            self.host = NetProcess(settings, self.device, name, self.board)
        self._memory = MemoryWatch(self.device.gpu)
        self._heart = Heart(settings, name, self.device, self.board, self.slots, self._memory)
        self._exporter: Optional[Exporter] = None
        self._keeper: Optional[Rounds] = None
        self._drain: Optional[threading.Timer] = None
        #: How slots say that they are ready.
        self.ready = Ready()
        #: The slots that were killed from here, by process id, until that has been noted in their jobs' records.
        self.killed: Dict[int, Killed] = {}
        #: Why the worker must end, if it must.
        self.trouble = ""

    @property
    def net_address(self) -> Optional[bytes]:
        """Where slots reach the net process; None: they hold the net themselves."""
        return self.host.address if self.host else None

    def launch_net(self) -> None:
        """Start the net process; it loads while this process does, too."""
        if self.host is not None:
            self.host.launch()

    def await_net(self, abandoned: Callable[[], bool]) -> None:
        """Wait until the net is ready; Prometheus is answered from before.

        Raises:
            ModelError, DeviceLost: why it is not.
            SettingsError: the port for Prometheus is taken.
        """
        self._memory.start()
        if self.settings.metrics_port:
            self._exporter = Exporter(self.settings, self.name, self.device, self.board, self.slots, self._memory)
        if self.host is not None:
            logger.info("● the net is ready: %s", self.host.await_ready(abandoned))

    def keep(self, on_trouble: Callable[[], None]) -> None:
        """Watch from now on, in a thread; `on_trouble` is called once, when the worker must end."""
        self._heart.ready = True
        self._heart.beat()
        if self._exporter is not None:
            self._exporter.ready()
        self._keeper = Rounds("keeper", _LOOK_S, partial(self._look, on_trouble))
        self._keeper.start()

    def in_slot(self) -> None:
        """In a child: let go of what is the parent's alone, and take the device if the child holds the net itself.

        Beside a GPU, slots have less than normal priority: the GPU waits whenever the net process does.
        """
        if self._exporter is not None:
            self._exporter.forget()
        if self.settings.inline:
            os.environ.update(self.device.environment)  # before CUDA is initialised, which is when the net is loaded
        elif self.device.gpu is not None:
            os.nice(_SLOT_NICENESS)

    def drain(self, give_back: Callable[[], object]) -> None:
        """Give the jobs in work POSE_GRACE_S seconds from the first signal to stop; then call `give_back`."""
        if self._drain is None:
            self._drain = threading.Timer(self.settings.grace_s, give_back)
            self._drain.daemon = True
            self._drain.start()

    def pause(self, paused: bool) -> None:
        """Say in the heartbeat whether the worker takes no jobs for a while."""
        self._heart.paused = paused

    def close(self, grace_s: float) -> None:
        """Stop watching, end the net process, give the device back."""
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper.join(5.0)
        if self.host is not None:
            self.host.stop(grace_s)
        self._heart.stop()
        self._memory.stop()
        if self._claim is not None:
            self._claim.close()

    def _look(self, on_trouble: Callable[[], None]) -> None:
        try:
            if self.host is not None:
                self._look_after_net(self.host)
                self.host.keep_running()
            self._look_after_slots()
        except DeviceLost as exc:
            self.trouble = str(exc)
        if self.board.worker.broken:
            self.trouble = "A slot cannot start any more; see the log above."
        self._heart.beat(self.host.restarts if self.host else 0)
        if self.trouble and self._keeper is not None:
            self._keeper.stop()
            on_trouble()

    def _look_after_net(self, host: NetProcess) -> None:
        row, most = self.board.net, self.settings.max_net_mb
        if not most or resident_bytes(row.pid) <= most << 20:
            return
        batch = set(row.batch) - {0}
        for slot in map(self.board.slot, range(self.slots)):
            if slot.pid in batch:  # before the net process: what loses that is tried again
                sentence = f"The net took more than {most} MB for it; lower target_height, or raise POSE_MAX_NET_MB."
                self._kill(slot, "the net process took too much memory for its job", JobTooLarge(sentence))
        host.start_again(f"took more than {most} MB", counts=not batch)

    def _look_after_slots(self) -> None:
        limit_s = self.settings.hard_time_limit_s
        for row in map(self.board.slot, range(self.slots)):
            if not row.pid:  # read first, as it is written last
                continue
            excess = self._excess(row.pid, row.decodes_from)
            if row.working_since and now() - row.working_since > limit_s:
                sentence = f"The image was not decoded within {limit_s:g} s; send a smaller one."
                error = ImageTooLarge(sentence) if row.decodes_from else None
                self._kill(row, f"its slot was killed after {limit_s:g} s, the hard time limit", error)
            elif now() - row.beat > FROZEN_S:
                self._kill(row, f"its slot was killed, for it gave no sign of life for {FROZEN_S:g} s")
            elif excess:
                self._kill(row, "its slot was killed, for it took too much memory or processor time", excess)

    def _excess(self, pid: int, decodes_from: float) -> Optional[PermanentError]:
        """What the job of slot `pid` ends in if it takes more than it may."""
        most, limit_s = self.settings.most_slot_mb, self.settings.decode_limit_s
        if most and resident_bytes(pid) > most << 20:
            if decodes_from:
                return ImageTooLarge(
                    f"The image took more than {most} MB to decode; send a smaller one, or raise POSE_MAX_SLOT_MB."
                )
            return JobTooLarge(f"The job took more than {most} MB; send a smaller image, or raise POSE_MAX_SLOT_MB.")
        if decodes_from and _processor_s(pid) - decodes_from > limit_s:
            return ImageTooLarge(
                f"The image took more than {limit_s:g} s of processor time to decode; send a plainer one, "
                "or raise POSE_DECODE_LIMIT_S."
            )
        return None

    def _kill(self, row: SlotRow, why: str, error: Optional[PermanentError] = None) -> None:
        pid = row.pid
        if pid:
            logger.error("✗ Process %d, a slot, is killed: %s.", pid, why)
            row.pid, self.killed[pid] = 0, Killed(why, error)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processor_s(pid: int) -> float:
    """Seconds of processor time that process `pid` has taken; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # as Linux numbers the clocks of processes
    return 0.0
