"""The command line: `condgan train | sample | evaluate | study` for any folder of labelled images."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from condgan.cli import generators, study
from condgan.training import TrainingDivergedError

__all__ = ["main"]

RESEARCH_ONLY = "For research only: nothing that comes out of it may be used to diagnose anybody."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a mistake in what was given, 130 for Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    given = make_parser().parse_args(words)
    given.command_line = shlex.join(["condgan", *words])
    try:
        given.run(given)
    except (ValueError, OSError, FloatingPointError, TrainingDivergedError) as error:
        sys.stderr.write(f"condgan {given.command}: error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"condgan {given.command}: interrupted; the same command goes on from here\n")
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="condgan",
        description="Train conditional GANs on labelled images, and find out what the generated images are good for. "
        + RESEARCH_ONLY,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (generators.add_train, generators.add_sample, generators.add_evaluate, study.add_study):
        add(commands)
    return parser
