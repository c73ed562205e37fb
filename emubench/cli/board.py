"""``emubench leaderboard …``: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from emubench.cli.options import Json, SizeOption, answer, leave

app = typer.Typer(help="The leaderboard's page: build, serve.", no_args_is_help=True)
Board = Annotated[Path, typer.Option("--board", help="The folder with entries/, verified/ and seasons.toml.")]
Site = Annotated[Path, typer.Option("--out", help="Folder of the page.")]
BOARD, SITE = Path("leaderboard"), Path("site")


@app.command()
def build(board: Board = BOARD, out: Site = SITE, size: SizeOption = "standard", json: Json = False) -> None:
    """Render the page from the entries alone, and at size standard the tables of the board's README.md.

    A bad entry is left out and named at the end, with exit status 1.

    Example: emubench leaderboard build --out site
    """
    from emubench.leaderboard.page import building

    written, faults = building.build(board, out, size)
    text = f"wrote {out / 'index.html'}; look at it with: emubench leaderboard serve --out {out}"
    answer(json, [str(path) for path in written], text)
    leave(faults)


@app.command()
def serve(
    out: Site = SITE, port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000
) -> None:
    """Show the page on this machine until Ctrl-C.

    Example: emubench leaderboard serve --out site
    """
    from emubench.leaderboard.page import building

    with building.server(out, port) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()
