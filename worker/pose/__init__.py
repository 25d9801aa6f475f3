"""Images → people → pictures. Pure: no queue, no framework, no files, no environment.

Names are loaded when they are used: clients, which want formats alone, do without OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.pose.decoder import decode
    from worker.pose.estimator import Estimate, EstimateOptions, Estimator
    from worker.pose.geometry import Geometry, plan
    from worker.pose.overlay import draw_overlay
    from worker.pose.people import People

_HOMES = {
    "decode": "decoder",
    "Estimate": "estimator",
    "EstimateOptions": "estimator",
    "Estimator": "estimator",
    "Geometry": "geometry",
    "plan": "geometry",
    "draw_overlay": "overlay",
    "People": "people",
}

__all__ = ["Estimate", "EstimateOptions", "Estimator", "Geometry", "People", "decode", "draw_overlay", "plan"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
