"""snas weights"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from snas.cli.options import Format
from snas.cli.tables import check_format, print_json
from snas.errors import InputError
from snas.exports import clean, write_export
from snas.registry import Registry
from snas.settings import registry_path


def weights(
    row: Annotated[int, typer.Argument(metavar="ID", help="Id of a leaderboard's row.")],
    *,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File to write the weights of one seed to, .safetensors.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which of the row's final seeds is written.")] = 0,
    registry: Annotated[str | None, typer.Option(help="Registry file; environment variable SNAS_REGISTRY.")] = None,
    format: Format = "table",
) -> None:
    """Check the trained weights that were kept of a row (--keep-weights), or write those of a seed to a file.

    The file is of the safetensors format: names of the network's state_dict, masks as bits. snas.load_network opens it.
    """
    check_format(format)
    from snas.weights import kept_file, recorded_weights

    with Registry(registry_path(registry), create=False) as opened:
        entry = opened.find_entry(row)
        if output is not None:
            path = kept_file(opened, entry, seed)
            _require_suffix(output)
            write_export(path.read_bytes(), Path(output))
            found = [_told(path, seed, recorded_weights(run) or {}) for run in opened.runs(entry) if run.number == seed]
        else:
            found = []
            for run in opened.runs(entry):
                if (recorded := recorded_weights(run)) is not None:
                    found.append(_told(kept_file(opened, entry, run.number), run.number, recorded))
    if not found:
        raise InputError(f"no weights of row {row} were kept; snas train {row} --keep-weights trains its seeds again")
    if format == "json":
        print_json({"row": row, "output": output, "weights": found})
        return
    for one in found:
        sys.stdout.write(f"seed {one['seed']}: {one['bytes']:,} bytes, SHA-256 {one['sha256']} (checked)\n")
    if output is not None:
        sys.stderr.write(f"wrote {clean(output)}\n")


def _told(path: Path, seed: int, recorded: Any) -> dict[str, Any]:
    return {"seed": seed, "file": str(path), "bytes": path.stat().st_size, "sha256": recorded["sha256"]}


def _require_suffix(output: str) -> None:
    if Path(output).suffix != ".safetensors":
        raise InputError(f"output is {output!r}; expected a name that ends in .safetensors")
