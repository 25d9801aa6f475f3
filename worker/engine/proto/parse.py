"""Parsing a message from bytes that may be anything."""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message


def parse(message: Message, data: bytes) -> None:
    """Fill `message` from `data`.

    Raises:
        ValueError: the data is truncated or something else.
    """
    try:
        message.ParseFromString(data)
    except (DecodeError, SystemError) as exc:  # protobuf 3.20 answers text that is not UTF-8 with a SystemError
        raise ValueError(str(exc.__cause__ or exc)) from exc
