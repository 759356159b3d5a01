"""All fault tests, each in a process of its own, and one table of what they found.

    make faults                                # or: python faults/run.py [--quick] [--only kills writers ...]

A part is a script beside this one that has `main(argv) -> int` and tells in the first line of its module what it does.
It takes --quick, ends with exit code 0 where all is well, and its last line of output has its figures.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
LONGEST = 3600.0  # seconds of a part; one that takes longer has failed


def parts() -> dict[str, str]:
    """The names of the parts, and what each does."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if has_main and path != Path(__file__).resolve():
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def run_part(name: str, arguments: Sequence[str]) -> tuple[bool, str]:
    """Run a part, showing what it prints; returns whether all was well, and its last line."""
    with subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, LONGEST)
        last = ""
        try:
            for line in process.stdout or ():
                sys.stdout.write(line)
                sys.stdout.flush()
                last = line.strip() or last
            code = process.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return code == 0, last if code >= 0 else f"ended by signal {-code}"


def main(argv: Sequence[str] | None = None) -> int:
    known = parts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small part of each, in a few minutes")
    parser.add_argument("--only", nargs="+", choices=list(known), default=list(known), help="default: all")
    options = parser.parse_args(argv)
    rows = []
    for name in options.only:
        print(f"\n== {name}: {known[name]}", flush=True)
        began = time.monotonic()
        good, last = run_part(name, ["--quick"] if options.quick else [])
        rows.append((name, good, time.monotonic() - began, last.removeprefix(f"{name}: ")))
    print(f"\n{'part':<16}{'':<8}{'time':>8}  what was found")
    for name, good, seconds, last in rows:
        print(f"{name:<16}{'ok' if good else 'FAILED':<8}{seconds:>6.0f} s  {last}")
    return 0 if all(good for _, good, _, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
