"""The command ``emubench``: its groups of commands, a file each. Torch is imported only where it is needed."""

import codecs
import io
import sys
from typing import Annotated

import typer

from emubench import __version__
from emubench.cli import board, data, grid, machine, ranks, runs, submit
from emubench.core.errors import EmubenchError, one_line

app = typer.Typer(
    name="emubench",
    help="Benchmark learned emulators of chaotic ODEs and PDEs: generate data, train, score, rank.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (data, runs, grid, ranks, machine):
    app.add_typer(group.app)
app.add_typer(submit.app, name="submit")
app.add_typer(submit.season_app, name="season")
app.add_typer(board.app, name="leaderboard")


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark learned emulators of chaotic ODEs and PDEs."""


PLAIN = "emubench.plain"
"""How characters are written that an output can't encode: see :func:`_plainly`."""
_INSTEAD = dict(zip("–−…◆×·±↑↓λσ₁≥≤→─", "--.*x.~^vls1><>-", strict=True))


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """The nearest plain characters in place of those that an encoding lacks, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_INSTEAD.get(c, "?") for c in error.object[error.start : error.end]), error.end


def main() -> None:
    """Entry point: what the caller can put right becomes one line and exit status 1, an interrupt 130."""
    if sys.stdout is None:  # closed by the shell: what is printed would be lost
        sys.exit("emubench: standard output is closed; send it to /dev/null if it is not wanted")
    codecs.register_error(PLAIN, _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)
    try:
        app()
    except (EmubenchError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"emubench: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as leaving:  # which is what typer makes of a KeyboardInterrupt
        if leaving.code == 130:
            print("emubench: interrupted; run the same command again to go on", file=sys.stderr)
        raise
