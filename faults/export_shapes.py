"""What readers of an export see beside its words: tags, live marks, commands, cells that are computed."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any


class Tags(HTMLParser):
    """The tags and attributes of a page, without what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count it; labels and widths are ours and hold no text of others but the columns' titles."""
        self.found[f"{tag} {' '.join(sorted(name for name, _ in attrs))}"] += 1

    def handle_comment(self, data: str) -> None:
        """Count it."""
        self.found["comment"] += 1


def live_cells(text: str) -> int:
    """Cells of a csv text that a spreadsheet would compute, whatever it takes for the separator."""
    live = 0
    for separator in ",;\t":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            for cell in row:
                plain = re.sub(r"^[\s\"\u00ad\u200b-\u200d\u2060\ufeff\x00-\x1f]+", "", cell)
                if plain[:1] in tuple("=+-@\uff1d\uff0b\uff0d\uff20") and plain[:1] and not _number(plain):
                    live += 1
    return live


def _number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def markdown_shape(text: str) -> list[str]:
    """What each line of a Markdown text is, with its live marks and nothing of its words."""
    text = re.sub(r"(`+) ?.*? ?\1", "C", text)  # layers stand in code, whose fence is longer than any inside
    return [re.sub(r"[^|#<>\[\]`*_~$]", "", re.sub(r"\\.", "", line)) for line in text.split("\n")]


def latex_shape(text: str) -> list[str]:
    """The commands and special characters of each line."""
    words = "backslash|asciitilde|asciicircum|less|greater|bar|quotesingle|asciigrave"
    words = rf"\\text({words})\{{\}}"
    plain = re.sub(words, "", text).replace("\\symbol{34}", "").replace("{[}", "").replace("{]}", "")
    plain = re.sub(r"\\[{}$&#%_]", "", re.sub(r"([-,])\{\}", r"\1", plain))
    return [" ".join(re.findall(r"\\[a-z]+|\\\\|[{}$&#%_^~]", line)) for line in plain.split("\n")]


SHAPES: dict[str, Callable[[str], Any]] = {
    "html": lambda text: Tags(text).found,
    "md": markdown_shape,
    "latex": latex_shape,
    "csv": lambda text: live_cells(text) or len(list(csv.reader(io.StringIO(text, newline="")))),
    "json": lambda text: len(json.loads(text)["groups"]),
}
