"""All benchmarks in order, and one table of what they found.

    make bench                                 # or: python benchmarks/run.py [--only candidates ...]

(A) candidates per hour, (B) sparse linear layers, (C) convolutions, (D) proposals, (E) memory, measured beside A to C,
(F) on a GPU. Each part is a script and runs in a process of its own; its module says what it compares. Takes about a
quarter of an hour on two idle cores, and writes benchmarks/results/*.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timing import RESULTS, header, version_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A script beside this one; its results have the same name."""

    letter: str
    name: str
    title: str


PARTS = (
    Part("A", "candidates", "20 MLP candidates under ASHA: how many times faster ours is"),
    Part("B", "sparse_linear", "a step of a masked MLP: how many times faster ours is than torch.nn.utils.prune"),
    Part("C", "convolutions", "an epoch: how many times faster ours is than plain eager PyTorch"),
    Part("D", "proposals", "one proposal"),
    Part("F", "gpu", "on a GPU: epochs a second, as many times those of plain eager PyTorch"),
)


def read_summary(path: Path) -> dict[str, float | str]:
    """What a part has for the table; nothing where it wrote no results or none for it."""
    if not path.is_file():
        return {}
    document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dict(document.get("summary", {}))


def line(text: str, value: float | str) -> str:
    """A line of the table; a number is a ratio.

    Example:
        >>> line("ours : theirs", 2.0)
        '  ours : theirs                                                                    2.0x'
    """
    return f"  {text:<74}{f'{value:10.1f}x' if isinstance(value, (int, float)) else f'{value:>11}'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="default: all")
    options = parser.parse_args()
    began = time.perf_counter()
    ran, failed = [], []
    for part in PARTS:
        script = HERE / f"{part.name}.py"
        if part.name not in options.only:
            continue
        if not script.is_file():
            print(f"({part.letter}) {script.name} is not there; it is left out")
            continue
        result = RESULTS / f"{part.name}.json"
        before = result.stat().st_mtime_ns if result.exists() else 0
        start = time.perf_counter()
        print(f"\n== ({part.letter}) {part.name}", flush=True)
        code = subprocess.run([sys.executable, str(script)], check=False).returncode
        print(f"== {time.perf_counter() - start:.0f} s", flush=True)
        if code:
            failed.append(part.name)
        elif result.exists() and result.stat().st_mtime_ns != before:
            ran.append(part)
    about = header(ray=version_of("ray"))
    print("\n" + ", ".join(f"{key} {value}" for key, value in about.items()))
    for part in ran:
        print(f"({part.letter}) {part.title}")
        for text, value in read_summary(RESULTS / f"{part.name}.json").items():
            print(line(text, value))
    print(f"{time.perf_counter() - began:.0f} s in all")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
