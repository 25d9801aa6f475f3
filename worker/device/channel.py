"""Inputs and maps between slots and the net process, through shared memory.

A slot writes its inputs into an arena of anonymous memory (memfd), whose descriptor it has passed over a Unix socket,
and says where; the net process writes the maps into the same arena and answers. Pixels are never sent, nothing lies in
a file system, and whatever is killed, the kernel frees the rest. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mmap
import os
import socket
import struct
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from worker import errors
from worker.engine.manifest import Manifest
from worker.engine.net import Maps, map_shapes
from worker.errors import DeviceLost, PoseError

#: What a slot says: an input is on its way; it will not come after all; here it is.
COMING, NOT_COMING, INPUTS = range(3)
#: What the net process answers with.
FLOAT32, FLOAT16, FAILED = range(3)
_DTYPES = {FLOAT32: np.dtype(np.float32), FLOAT16: np.dtype(np.float16)}

# kind, number of the net, sequence number, inputs, height, width, offset of the inputs, offset of the maps, bytes of a
# new arena (or 0)
_QUESTION = struct.Struct("<BBQIIIQQQ")
# kind, sequence number; after FAILED, the error as JSON
_REPLY = struct.Struct("<BQ")
_MESSAGE_BYTES = 4096
_ALIGNMENT = 64
_FIRST_ARENA_BYTES = 4 << 20
#: struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("iII")


class Arena:
    """A piece of anonymous memory that two processes share.

    Args:
        descriptor: of the memory; owned, and closed with the arena.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size
        self._bytes = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        self._start = self._bytes.__array_interface__["data"][0]

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    @classmethod
    def create(cls, size: int) -> Arena:
        """A new arena that cannot shrink under its reader."""
        descriptor = os.memfd_create("pose-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return cls(descriptor, size)

    def array(self, offset: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """A view of `shape` and `dtype` at `offset`; it keeps the memory mapped."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if offset % dtype.itemsize or size > self.size - offset:
            raise ValueError(f"{size} bytes at {offset} are not within an arena of {self.size}")
        return self._bytes[offset : offset + size].view(dtype).reshape(shape)

    def find(self, array: np.ndarray) -> Optional[int]:
        """The offset at which `array` lies whole and contiguous in this arena; None if it does not."""
        offset = int(array.__array_interface__["data"][0]) - self._start
        inside = array.flags.c_contiguous and 0 <= offset <= self.size - array.nbytes
        return offset if inside else None


class RemoteNet:
    """A net in the net process, seen from a slot: called like a :class:`worker.engine.net.Net`.

    Args:
        address: where the net process listens.
        number: the net's, among those that the worker serves.
        timeout_s: seconds within which it must answer.
        shares: whether inputs share a pass there; else nobody need know that one is on its way.
    """

    def __init__(
        self, address: bytes, manifest: Manifest, *, number: int = 0, timeout_s: float, shares: bool = True
    ) -> None:
        self.manifest = manifest
        self._address, self._number, self._timeout_s, self._shares = address, number, timeout_s, shares
        self._socket: Optional[socket.socket] = None
        self._sequence = 0
        self._arena, self._top, self._sent = Arena.create(_FIRST_ARENA_BYTES), 0, False
        self._promised = self._asking = False

    def begin(self) -> None:
        """Say that an input is on its way. All arrays handed out for the job before are void from here on."""
        if self._asking:  # a time limit has interrupted even the clearing up
            self._abandon()
        self._top = 0
        self._promised = self._shares
        # If the net process is away now, the input itself will find out.
        with contextlib.suppress(DeviceLost):
            if self._promised:
                self._send(COMING)

    def end(self) -> None:
        """Say that the promised input will not come, if it has not; call it when a job ends, however it ends."""
        if self._promised and self._socket is not None:
            with contextlib.suppress(DeviceLost):
                self._send(NOT_COMING)
        self._promised = False

    def empty(self, shape: Tuple[int, ...]) -> np.ndarray:
        """An uninitialised uint8 array: inputs written there are not copied by :meth:`__call__`."""
        offset = self._allocate(math.prod(shape))  # may move on to another arena
        return self._arena.array(offset, shape, np.uint8)

    def __call__(self, inputs: np.ndarray) -> Maps:
        """Have the net process run padded inputs uint8 (N, H, W, 3), BGR.

        Returns:
            heatmaps (N, K + 1, h, w) and PAFs (N, 2 L, h, w), float32, valid until the next :meth:`begin`.

        Raises:
            DeviceLost: the net process died, or did not answer in time.
            DeviceOutOfMemory: one of the inputs alone does not fit.
        """
        count, height, width, _ = inputs.shape
        shapes = map_shapes(self.manifest, count, (height, width))
        size = 4 * sum(map(math.prod, shapes))
        at_inputs = self._arena.find(inputs)
        if at_inputs is None or not self._has_room(size):
            at_inputs = self._allocate(inputs.nbytes + _ALIGNMENT + size)
            self._arena.array(at_inputs, inputs.shape, np.uint8)[...] = inputs
            at_maps = _aligned(at_inputs + inputs.nbytes)
        else:
            at_maps = self._allocate(size)
        kind = self._ask(count, height, width, at_inputs, at_maps)
        heatmaps = self._arena.array(at_maps, shapes[0], _DTYPES[kind])
        pafs = self._arena.array(at_maps + heatmaps.nbytes, shapes[1], _DTYPES[kind])
        if kind == FLOAT16:
            return heatmaps.astype(np.float32), pafs.astype(np.float32)
        return heatmaps, pafs

    def close(self) -> None:
        """Hang up; the next call connects again."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._sent = None, False

    def _has_room(self, size: int) -> bool:
        return _aligned(self._top) + size <= self._arena.size

    def _allocate(self, size: int) -> int:
        """Room for `size` bytes; where the arena has none left, a larger one replaces it."""
        if not self._has_room(size):
            self._arena, self._sent = Arena.create(2 * max(self._arena.size, size)), False
            self._top = 0
        start = _aligned(self._top)
        self._top = start + size
        return start

    def _ask(self, *numbers: int) -> int:
        self._promised, self._asking = False, True
        try:
            self._send(INPUTS, *numbers)
            kind, text = self._reply()
        except BaseException as exc:
            self._abandon()
            if isinstance(exc, OSError):
                raise DeviceLost(
                    f"The net process did not answer within {self._timeout_s:g} s ({exc}); the job is tried again."
                ) from exc
            raise
        self._asking = False
        if kind == FAILED:
            raise _decoded(text)
        return kind

    def _abandon(self) -> None:
        """The net process may still write: neither its answer nor its maps may be taken for the next job's."""
        self.close()
        self._arena = Arena.create(self._arena.size)
        self._asking = False

    def _reply(self) -> Tuple[int, bytes]:
        assert self._socket is not None
        reply = self._socket.recv(_MESSAGE_BYTES)
        if not reply:
            raise DeviceLost("The net process ended while it held the job's input; the job is tried again.")
        kind, sequence = _REPLY.unpack_from(reply)
        if sequence != self._sequence:
            raise DeviceLost("The net process answered another question; the job is tried again.")
        return kind, reply[_REPLY.size :]

    def _send(self, kind: int, *numbers: int) -> None:
        for attempt in (1, 2):  # a connection from before the net process was restarted is found out by using it
            try:
                connection = self._connected()
                new = kind == INPUTS and not self._sent
                self._sequence += 1
                numbers = numbers or (0, 0, 0, 0, 0)
                size, descriptors = (self._arena.size, [self._arena.descriptor]) if new else (0, [])
                question = _QUESTION.pack(kind, self._number, self._sequence, *numbers, size)
                socket.send_fds(connection, [question], descriptors)
                self._sent = self._sent or new
                return
            except OSError as exc:
                self.close()
                if attempt == 2:
                    raise DeviceLost(f"The net process cannot be reached ({exc}); the job is tried again.") from exc

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(self._address)
        return self._socket


def listen() -> socket.socket:
    """A listening socket at an address that the kernel chooses, in no file system."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(b"")
    listener.listen(1024)
    return listener


class NetInputs(NamedTuple):
    """Inputs of one slot, and where their maps go."""

    sender: Connection
    net: int
    sequence: int
    inputs: np.ndarray
    maps: Arena
    at_maps: int


class Connection:
    """One slot, seen from the net process."""

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._socket.setblocking(False)
        self._arena: Optional[Arena] = None
        self.coming = False
        self.open = True
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self._user, _ = _CREDENTIALS.unpack(raw)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def is_ours(self) -> bool:
        """Whether a process of the same user is at the other end."""
        return bool(self._user == os.getuid())

    def receive(self) -> List[NetInputs]:
        """All inputs that have arrived; a broken connection is given up."""
        arrived: List[NetInputs] = []
        try:
            while True:
                message, descriptors, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, 1)
                if not message:
                    self._give_up()
                    return arrived
                given = self._understand(message, descriptors)
                if given is not None:
                    arrived.append(given)
        except BlockingIOError:
            return arrived
        except (OSError, ValueError, struct.error):
            self._give_up()
            return arrived

    def succeed(self, given: NetInputs, kind: int) -> None:
        """Say that the maps are written."""
        self._answer(_REPLY.pack(kind, given.sequence))

    def fail(self, given: NetInputs, exc: PoseError) -> None:
        """Say that they are not."""
        text = json.dumps([type(exc).__name__, str(exc)[:3000]])
        self._answer(_REPLY.pack(FAILED, given.sequence) + text.encode())

    def close(self) -> None:
        """Hang up."""
        self._give_up()
        self._socket.close()

    def _give_up(self) -> None:
        """Nothing more is said or heard; whoever selects on it closes it."""
        self.open = self.coming = False

    def _understand(self, message: bytes, descriptors: List[int]) -> Optional[NetInputs]:
        kind, net, sequence, count, height, width, at_inputs, at_maps, size = _QUESTION.unpack(message)
        if descriptors:
            self._arena = Arena(descriptors[0], size)
        self.coming = kind == COMING
        if kind != INPUTS:
            return None
        if self._arena is None or not count * height * width:
            raise ValueError("no inputs")
        inputs = self._arena.array(at_inputs, (count, height, width, 3), np.uint8)
        return NetInputs(self, net, sequence, inputs, self._arena, at_maps)

    def _answer(self, message: bytes) -> None:
        if self.open:
            try:
                self._socket.send(message)
            except OSError:  # the slot has died, or was frozen for so long that its socket is full
                self._give_up()


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _decoded(text: bytes) -> PoseError:
    name, sentence = json.loads(text)
    kind = getattr(errors, name, DeviceLost)
    error: PoseError = kind(sentence)
    return error
