"""`mulligan worker`: a control worker, a partition worker, or both, in the foreground."""

import click


@click.command()
@click.option("--control", is_flag=True, help="Run workflows and record-keeping; needs the database.")
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    metavar="NAME",
    help="Run images, boots and verification of this partition, and its boot server; may be given several times.",
)
def worker(control: bool, partitions: tuple[str, ...]) -> None:
    """Run a worker (for a deployment in parts; `mulligan up` runs everything)."""
    if not control and not partitions:
        raise click.UsageError("say what the worker shall do: --control, --partition NAME, or both")

    from mulligan.api.cli.settings import load_settings  # noqa: PLC0415 - help without an import of everything
    from mulligan.api.processes.mains import run_main  # noqa: PLC0415
    from mulligan.api.processes.worker import work  # noqa: PLC0415

    roles = "+".join([*(["control"] if control else []), *partitions])
    run_main(f"worker {roles}", load_settings(), lambda settings, ending: work(settings, ending, control, partitions))
