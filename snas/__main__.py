"""The `snas` command, and `python -m snas`."""

import sys


def run() -> None:
    """Run the command line; Ctrl-C ends it with code 130 from the first moment on."""
    try:
        from snas.cli.main import main

        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    run()
