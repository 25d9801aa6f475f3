"""docs/contract.schema.json, which is generated: python -m tests.support.contract_schema > docs/contract.schema.json"""

from __future__ import annotations

import json
from typing import Any, Dict

from worker.contract import TASK, Job, Result
from worker.video_contract import VIDEO_TASK, VideoJob, VideoResult


def json_schema() -> Dict[str, Any]:
    """The JSON Schema of the message's arguments and of the result."""
    definitions: Dict[str, Any] = {}
    for model in (Job, Result, VideoJob, VideoResult):
        schema = model.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        definitions[model.__name__] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{TASK}: Job goes in, Result comes out; {VIDEO_TASK}: VideoJob goes in, VideoResult comes out",
        "$defs": dict(sorted(definitions.items())),
    }


if __name__ == "__main__":
    import sys

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
