"""Lets `python -m snas` run the command line."""

from snas.cli.main import run

run()
