"""Images → people → pictures. Pure: no queue, no framework, no files, no environment."""

from worker.pose.decoder import decode
from worker.pose.estimator import Estimate, EstimateOptions, Estimator
from worker.pose.geometry import Geometry, plan
from worker.pose.overlay import draw_overlay
from worker.pose.people import People

__all__ = ["Estimate", "EstimateOptions", "Estimator", "Geometry", "People", "decode", "draw_overlay", "plan"]
