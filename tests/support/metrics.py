"""What Prometheus would read of a worker."""

from __future__ import annotations

import urllib.request
from typing import Dict, Tuple

from prometheus_client.parser import text_string_to_metric_families

#: A sample's name and labels.
Key = Tuple[str, Tuple[Tuple[str, str], ...]]


def scrape(port: int) -> Dict[Key, float]:
    """The samples at `port`, by name and labels other than the worker's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "worker"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def get(samples: Dict[Key, float], name: str, **labels: str) -> float:
    """The value of one of `samples`."""
    return samples[name, tuple(sorted(labels.items()))]
