"""Examples out of the documentation, as its readers find them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Dict, List, Tuple

from tests.support import ROOT


def examples(document: str, language: str) -> List[str]:
    """The code blocks in `language` of a Markdown file, by its path from the repository's root."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def example(document: str, language: str, telling: str) -> str:
    """The one block that `telling` is in."""
    (found,) = [block for block in examples(document, language) if telling in block]
    return found


def command(block: str, **replaced: str) -> Tuple[Dict[str, str], List[str]]:
    """A shell block as the variables that it sets and the one command that it runs, with this environment's programs.

    Args:
        replaced: other values for some of the variables.
    """
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    told: Dict[str, str] = dict(line[1].split("=", 1) for line in lines if line[0] == "export")
    (words,) = [line for line in lines if line[0] != "export"]
    while "=" in words[0]:
        name, _, told[name] = words.pop(0).partition("=")
    assert set(replaced) <= set(told)
    if words[0].startswith((".venv/bin/", ".venv-caffe2/bin/")):
        words[0] = os.fspath(Path(sys.executable).parent / Path(words[0]).name)
    return {**told, **replaced}, words
