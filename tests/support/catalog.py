"""A catalogue of one small net, whose one file is a TensorFlow graph."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.support.graphs import pose_graph

GRAPH = pose_graph()
SHA256 = hashlib.sha256(GRAPH).hexdigest()


def small_catalog(folder: Path, source: str, confirm: bool = False) -> Path:
    """The catalogue's file in `folder`; `source` says where the graph comes from."""
    path = folder / "catalog.toml"
    path.write_text(
        f"""
[small]
title = "A small net"
licence = "Test Licence"
confirm = {str(confirm).lower()}
skeleton = "COCO-18"
input = {{ blob = "image", channel_order = "BGR", mean = [0, 0, 0], scale = 1.0, stride = 8, pad_value = 0 }}
heatmaps = {{ blob = "Openpose/concat_stage7", start = 0, stop = 19 }}
pafs = {{ blob = "Openpose/concat_stage7", start = 19, stop = 57 }}

[[small.files]]
name = "graph.pb"
format = "tensorflow"
bytes = {len(GRAPH)}
sha256 = "{SHA256}"
{source}
"""
    )
    return path
