"""docs/settings.md, which is generated: python -m tests.support.settings_table > docs/settings.md"""

from __future__ import annotations

from typing import Any

from worker.settings import PREFIX, Settings

_HEAD = """# Settings

All settings are environment variables. An empty variable counts as one that is not set. `POSE_<NAME>_FILE` names a file
that holds the value of `POSE_<NAME>`: for secrets. `python -m worker check --config` lists everything that is wrong.

<!-- generated from worker/settings.py: python -m tests.support.settings_table > docs/settings.md -->
"""


def document() -> str:
    """The whole page."""
    return f"{_HEAD}\n{table()}\n"


def table() -> str:
    """All settings as a Markdown table."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(name, field.default)} | {field.description} |")
    return "\n".join(rows)


def _default(name: str, value: Any) -> str:
    if name == "models_dir":
        return "`models/`"
    if name == "heartbeat_dir":
        return "`/tmp/pose-worker-<uid>`"
    if name == "warm_sizes":
        return "`" + ",".join(f"{height}x{width}" for height, width in value) + "`"
    if isinstance(value, tuple):
        return "`" + ":".join(value) + "`" if value else ""
    return f"`{value}`" if value != "" else ""


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
