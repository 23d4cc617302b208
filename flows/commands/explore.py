"""`explore`: a dataset in the browser."""

import sys
import webbrowser
from pathlib import Path
from threading import Event

import click

from wavecity.flows.commands.options import address, path
from wavecity.flows.help import SpokenCommand
from wavecity.geo.errors import InputError


@click.command(
    cls=SpokenCommand,
    examples=(
        ("wavecity explore runs/quickstart/store", "opens the page in the browser; Ctrl-C ends it"),
        ("wavecity explore runs/quickstart/store --run runs/quickstart", "with what its model predicts"),
        ("wavecity explore public/store --out public/site", "the same page as files, for any web server"),
    ),
)
@click.argument("store", type=address)
@click.option("--out", type=address, help="Write the page as static files to this folder or URL instead.")
@click.option(
    "--data", metavar="URL", help="With --out: where a browser finds the version's folder (default: seen from --out)."
)
@click.option("--run", type=path, help="Folder of a run: show its predictions of held-out users next to the truth.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on this machine (default: a free one).")
@click.option("--no-browser", is_flag=True, help="Only print the page's address.")
def explore(store: str, out: str | None, data: str | None, run: Path | None, port: int, no_browser: bool) -> None:
    """Look at a dataset in the browser: cities, scenes in 3D, users with their channels and paths."""
    from wavecity.dataset.files import location
    from wavecity.dataset.reader import resolve
    from wavecity.flows.explore.server import serving
    from wavecity.flows.explore.site import address_of, make_site, refuse_out, write_site

    if data and not out:
        msg = f"--data {data}: only with --out; the local server brings the data itself"
        raise InputError(msg)
    if out:
        # Before the store is read, which may take a while.
        version = resolve(store).parent
        refuse_out(version, location(out))
        if not data:
            address_of(version, location(out))
        found = write_site(make_site(store, run), out, data)
        click.echo(f"wrote {out}: a page that reads {found}, from any web server that answers range requests")
        return
    site = make_site(store, run)
    with serving(site, port) as page:
        click.echo(page)
        # Whoever reads the address through a pipe wants it now.
        sys.stdout.flush()
        click.echo("Ctrl-C ends the server", err=True)
        if not no_browser:
            webbrowser.open(page)
        try:
            Event().wait()
        except KeyboardInterrupt:
            click.echo("ended", err=True)
