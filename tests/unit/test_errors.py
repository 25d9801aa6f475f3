"""Every error survives Celery's JSON round trip."""

from __future__ import annotations

from typing import Iterator, Type

import pytest
from celery import Celery

from worker import errors
from worker.errors import DeadLetter, PermanentError, PoseError, TransientError


def _tree(root: Type[PoseError]) -> Iterator[Type[PoseError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


ALL = [cls for cls in _tree(PoseError) if cls.__module__ == "worker.errors"]


@pytest.mark.parametrize("cls", ALL)
def test_round_trip_through_the_result_backend(cls: Type[PoseError]) -> None:
    backend = Celery("t", backend="cache+memory://", set_as_current=False).backend
    sent = backend.prepare_exception(cls("what, why, remedy"), serializer="json")
    back = backend.exception_to_python(backend.decode(backend.encode(sent)))
    assert type(back) is cls
    assert str(back) == "what, why, remedy"


@pytest.mark.parametrize("cls", ALL[1:])
def test_every_error_is_of_one_branch_and_drawn_in_the_tree(cls: Type[PoseError]) -> None:
    branches = (PermanentError, TransientError, DeadLetter)
    assert sum(issubclass(cls, branch) for branch in branches) == 1
    assert f"─ {cls.__name__} " in (errors.__doc__ or "")
