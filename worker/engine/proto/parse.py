"""Reading a protobuf message from a file that may hold anything."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError, Message

from worker.errors import ModelError

#: Largest file read, in bytes; protobuf itself ends at 2 GiB.
MAX_BYTES = 2**31 - 1


def read_message(path: Path, message: Message, kind: str) -> None:
    """Fill `message` from the file at `path`, which should be a `kind`, such as ``Caffe2 NetDef``.

    Raises:
        ModelError: the file is missing, too large (which is found before anything is read), truncated or no `kind`.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES} bytes, which no {kind} can be; fetch it again.")
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path} cannot be read ({exc.strerror}); fetch or convert the net again.") from exc
    try:
        message.ParseFromString(data)
    except (DecodeError, SystemError) as exc:  # protobuf 3.20 answers text that is not UTF-8 with a SystemError
        raise ModelError(f"{path} is truncated or not a {kind} ({exc.__cause__ or exc}); fetch it again.") from exc
