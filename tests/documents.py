"""Examples out of the documentation, as its readers find them."""

from __future__ import annotations

import re
from typing import List

from tests.support import ROOT


def examples(document: str, language: str) -> List[str]:
    """The code blocks in `language` of a Markdown file, by its path from the repository's root."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def example(document: str, language: str, telling: str) -> str:
    """The one block that `telling` is in."""
    (found,) = [block for block in examples(document, language) if telling in block]
    return found
