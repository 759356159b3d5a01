"""The `snas` command: parses, calls the library, prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer

import snas
from snas.cli import (
    analyze,
    cite,
    leaderboard,
    listing,
    prune,
    registry,
    search,
    show,
    study,
    sweep,
    train,
    transfer,
    weights,
)
from snas.errors import InputError, SnasError

INTERRUPTED = 130

app = typer.Typer(
    name="snas",
    help="Sparse neural architecture search: find how much of each layer of a network to keep.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("search", epilog="Example: snas search --space lenet-300-100 --dataset mnist --samples 30")(search.search)
app.command("prune", epilog="Example: snas prune --space resnet32 --method snip --density 0.05")(prune.prune)
app.command("sweep", epilog="Example: snas sweep --methods dense,snip,erk --densities 0.1,0.05 --seeds 5")(sweep.sweep)
app.command("study", epilog="Example: snas study smoothness --scale tiny -o results")(study.study)
app.command("train", epilog="Example: snas train 1 --epochs 50 --final-seeds 5")(train.train)
app.command("transfer", epilog="Example: snas transfer 1 --dataset fashion-mnist --density 0.05")(transfer.transfer)
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(analyze.app, name="analyze")
app.add_typer(registry.app, name="registry")
app.command("cite", epilog="Example: snas cite --builtin")(cite.cite)
app.command("show", epilog="Example: snas show 1")(show.show)
app.command("weights", epilog="Example: snas weights 1 -o network.safetensors")(weights.weights)
app.command("list", epilog="Example: snas list spaces")(listing.list_plugins)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"snas {snas.__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sparse neural architecture search: find how much of each layer of a network to keep."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    logging.basicConfig(format="snas: %(message)s", level=logging.WARNING, stream=sys.stderr)
    _stop_on_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without block characters shows question marks
    try:
        _require_texts(sys.argv[1:] if arguments is None else arguments)
        code = app(args=arguments, standalone_mode=False)
        if code == INTERRUPTED:  # typer turns KeyboardInterrupt into this
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; what was recorded is kept, and the same command resumes")
        return INTERRUPTED
    except InputError as error:
        _say(str(error))
        return 2
    except SnasError as error:
        _say(str(error))
        return 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; leave without a complaint at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _say(f"{error.filename or 'output'}: {error.strerror or error}")
        return 1
    except MemoryError:
        _say("out of memory; what was recorded is kept: make room, or ask for less at a time, and run the same command")
        return 1
    except Exception as error:
        return _usage_error(error)


def _require_texts(words: list[str]) -> None:
    """Raise InputError for a word that could not be a name of anything: half of a pair of code units."""
    for word in words:
        try:
            os.fsencode(word)
        except UnicodeEncodeError:
            raise InputError(f"{word[:60]!r} has a character that no file or terminal can hold; leave it out") from None


def _usage_error(error: Any) -> int:
    """One line for wrong use that typer found; anything else is our defect and keeps its traceback."""
    if not hasattr(error, "format_message"):
        raise error
    text = " ".join(error.format_message().split())
    if not text:  # no command at all: the help has been shown
        return 2
    context = getattr(error, "ctx", None)
    help_command = f"{context.command_path} --help" if context else "snas --help"
    _say(f"{text.rstrip('.')}; see {help_command}")
    return 2


def _say(text: str) -> None:
    from snas.exports.cells import clean

    sys.stderr.write(f"snas: {' '.join(clean(text).split())}\n")


def _stop_on_sigterm() -> None:
    """Let SIGTERM stop a search as cleanly as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
