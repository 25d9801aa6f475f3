"""Everything that can go wrong with a job, in one tree.

::

    PoseError
    ├── PermanentError            the same input will fail again: never retried
    │   ├── InvalidRequest        the message: unknown option, wrong type, out of range
    │   │   └── JobConflict       the caller's job_id was used for another job before
    │   ├── ImageError            the image itself
    │   │   ├── ImageNotFound     nothing at that path or URL
    │   │   ├── ImageNotAllowed   outside the allowed roots, or not a regular file
    │   │   ├── ImageTooLarge     bytes, pixels, aspect ratio, or the cost of decoding it beyond the limit
    │   │   │   └── VideoTooLarge     a film: frames, seconds, pixels or aspect ratio beyond the limit
    │   │   └── ImageUndecodable  empty, truncated, or not an image in an accepted format
    │   │       └── VideoUndecodable  a film: no video in it, or not in an accepted format
    │   ├── VideoFailed           some of a film's segments did; what was found in the others is kept
    │   ├── JobTooLarge           it asks for more pixels of the net, or takes more memory, than one job may
    │   ├── ModelError            the net's files: missing, corrupt, unsupported
    │   ├── JobCancelled          not done: it was cancelled, or its deadline passed
    │   ├── JobFailed             the job's process was killed, or met an error that is none of these
    │   └── SettingsError         a POSE_* variable has a value that is not allowed
    ├── DeadLetter                every attempt failed in a way that may pass; kept until someone looks
    └── TransientError            the same input may succeed later: retried with back-off
        ├── ImageNotReady         not there yet
        ├── ImageUnreadable       an I/O error while opening or reading it
        ├── BrokerUnavailable     the broker or the result backend does not answer
        ├── StorageUnavailable    the overlay store does not answer
        ├── JobTimedOut           the job took longer than its time limit
        ├── DeviceOutOfMemory     a single frame did not fit
        └── DeviceLost            the device does not work, or its net process died or did not answer in time

Every class takes one argument, the sentence a person reads: the thing, the reason, the remedy.
So each survives Celery's JSON round trip, which rebuilds an exception as ``cls(*exc.args)``.
This module imports no other of ours and may be imported from every room.
"""

from __future__ import annotations

from typing import Any, Mapping


class PoseError(Exception):
    """Base of all errors of this project."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class PermanentError(PoseError):
    """The same input will fail again; the job ends here and is never retried."""


class InvalidRequest(PermanentError):
    """The message does not fit the contract."""


class JobConflict(InvalidRequest):
    """The id that the caller chose belongs to another job."""


class ImageError(PermanentError):
    """Something is wrong with the image a job names."""


class ImageNotFound(ImageError):
    """Nothing is there."""


class ImageNotAllowed(ImageError):
    """The path leaves the allowed roots, or is not a regular file."""


class ImageTooLarge(ImageError):
    """More bytes, more pixels, a more extreme shape or a costlier way of packing it than the limits admit."""


class ImageUndecodable(ImageError):
    """Empty, truncated, or not an image in an accepted format."""


class VideoTooLarge(ImageTooLarge):
    """A film of more frames, more seconds, more pixels or a more extreme shape than the limits admit."""


class VideoUndecodable(ImageUndecodable):
    """Empty, without a video stream, without a frame that can be decoded, or not a film in an accepted format."""


class VideoFailed(PermanentError):
    """A segment of the film failed, or was given up; what was found in the others is kept."""


class JobTooLarge(PermanentError):
    """The job asks for more than one job may have: pixels of the net's inputs, or memory."""


class ModelError(PermanentError):
    """The net's files are missing, corrupt, or use something that is not supported."""


class JobFailed(PermanentError):
    """The job ended in an error that is none of this tree, such as its process being killed."""


class JobCancelled(PermanentError):
    """The job was cancelled, or no worker took it before its deadline."""


class SettingsError(PermanentError):
    """A setting has a value that is not allowed."""


class DeadLetter(PoseError):
    """All attempts that the job may have were used up; it is kept with its history."""


class TransientError(PoseError):
    """The same input may succeed later; the job is retried with back-off."""


class ImageNotReady(TransientError):
    """The file is not there yet."""


class ImageUnreadable(TransientError):
    """The file system or the server failed while the image was opened or read."""


class BrokerUnavailable(TransientError):
    """The broker or the result backend does not answer."""


class StorageUnavailable(TransientError):
    """The overlay store does not answer."""


class JobTimedOut(TransientError):
    """The job took longer than its soft time limit."""


class DeviceOutOfMemory(TransientError):
    """One frame alone did not fit into the device's memory."""


class DeviceLost(TransientError):
    """The device or its driver does not work, or the net process died or did not answer before its deadline."""


def reason_in(error: Mapping[str, Any]) -> str:
    """The reason in one of a pydantic ValidationError's errors, as the end of a sentence."""
    text = str(error["msg"])
    ours = error["type"] == "value_error"
    return text.replace("Value error, ", "", 1) if ours else text[0].lower() + text[1:]


def fault_in(exc: Exception) -> str:
    """Of a pydantic ValidationError the first error's field and reason; of another exception what it is."""
    errors = getattr(exc, "errors", None)
    if errors is None:
        return repr(exc)
    fault = errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, fault["loc"])), reason_in(fault))))
