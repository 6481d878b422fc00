"""`mulligan server`: the API server, in the foreground."""

import click


@click.command()
def server() -> None:
    """Run the API server (for a deployment in parts; `mulligan up` runs everything)."""
    from mulligan.api.cli.settings import load_settings  # noqa: PLC0415 - help without an import of everything
    from mulligan.api.processes.mains import run_main  # noqa: PLC0415
    from mulligan.api.processes.server import serve_until  # noqa: PLC0415

    run_main("server", load_settings(), serve_until)
