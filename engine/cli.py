"""The command line: `emovec run MANIFEST` and its parts.

Exit 0 done, 1 failed, 2 bad input, 130 interrupted and resumable by the same command.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from engine.plan import Plan, Status
    from manifests.resolve import Study
    from store.layout import Layout

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Emotion geometry in language models, from a manifest file.",
)

ManifestFile = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest (YAML).")]
Root = Annotated[Path, typer.Option("--root", help="Folder that holds runs.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Analyse on the workers of this Dask scheduler, such as tcp://10.0.0.1:8786; "
        "they see the run's folder under the same path.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
RUNS = Path("runs")
INTERRUPTED = 130


@app.command()
def run(manifest: ManifestFile, root: Root = RUNS, scheduler: Scheduler = None) -> None:
    """Do everything a manifest asks for that is not done yet."""
    _execute("run", manifest, root, scheduler)


@app.command()
def generate(manifest: ManifestFile, root: Root = RUNS) -> None:
    """Write or import the corpora only."""
    _execute("generate", manifest, root)


@app.command()
def extract(manifest: ManifestFile, root: Root = RUNS) -> None:
    """Corpora, and reading them into story vectors."""
    _execute("extract", manifest, root)


@app.command()
def analyze(manifest: ManifestFile, root: Root = RUNS, scheduler: Scheduler = None) -> None:
    """Everything up to the tables."""
    _execute("analyze", manifest, root, scheduler)


@app.command()
def report(manifest: ManifestFile, root: Root = RUNS, scheduler: Scheduler = None) -> None:
    """Everything up to the figures."""
    _execute("report", manifest, root, scheduler)


@app.command()
def plan(manifest: ManifestFile, root: Root = RUNS, as_json: AsJson = False) -> None:
    """Show what would be done, and how large it will be. Starts nothing."""
    from engine.plan import State

    _, the_plan, layout, statuses = _look(manifest, root)
    if as_json:
        return _print_json(statuses)
    from engine.summary import print_status

    console = _console()
    print_status(console, statuses)
    todo = sum(status.state is not State.DONE for status in statuses)
    for cell in the_plan.study.cells:
        if the_plan.shapes[cell.model] is None:
            console.print(f"{cell.name}: sizes are not known before its model is downloaded")
    console.print(f"{todo} of {len(statuses)} stages to do in {layout.run}", soft_wrap=True)
    return None


@app.command()
def status(manifest: ManifestFile, root: Root = RUNS, as_json: AsJson = False) -> None:
    """Show how far a run is, and what it found once it is done."""
    from engine.plan import State

    _, the_plan, layout, statuses = _look(manifest, root)
    if as_json:
        return _print_json(statuses)
    from engine.summary import print_results, print_status

    console = _console()
    print_status(console, statuses)
    if all(s.state is State.DONE for s in statuses if s.stage.kind == "tables"):
        print_results(console, the_plan, layout)
    return None


@app.command()
def export(
    manifest: ManifestFile,
    to: Annotated[Path, typer.Option("--to", help="Folder to make, one in it for each corpus.")],
    corpus: Annotated[str | None, typer.Option("--corpus", help="Only this corpus.")] = None,
    root: Root = RUNS,
) -> None:
    """Write finished corpora in the published schema, for `datasets.load_dataset`."""
    from engine.export import export_corpora

    study, _, layout, statuses = _look(manifest, root)
    for folder, n_texts in export_corpora(study, layout, statuses, corpus, to):
        typer.echo(f"{folder}   {n_texts:,} texts")


@app.command()
def models() -> None:
    """List the built-in models."""
    from manifests.builtin import BUILTIN_MODELS

    for name, model in BUILTIN_MODELS.items():
        typer.echo(f"{name:<16} {model.description} ({model.licence})")


def _execute(command: str, manifest: Path, root: Path, scheduler: str | None = None) -> None:
    """Run a command's phases, print its closing words and exit with its code."""
    study = _load(manifest)
    from engine.plan import Plan
    from engine.progress import progress_lines
    from engine.run import run_study
    from engine.summary import print_outputs, print_results
    from store.layout import Layout

    console = _console()
    with progress_lines(console) as listener:
        outcome = run_study(study, root, command, listener, scheduler)
    if outcome.failed:
        console.print(f"{len(outcome.failed)} stages failed; what is done is kept", style="bold")
        raise typer.Exit(1)
    layout = Layout(root, study.manifest.name)
    if command in ("run", "report", "analyze"):
        print_results(console, Plan(study), layout)
    if command in ("run", "report"):
        print_outputs(console, layout)
    if not outcome.done:
        console.print(f"\nnothing to do: all {len(outcome.skipped)} stages are up to date")


def _load(manifest: Path) -> Study:
    from manifests.resolve import load_study

    return load_study(manifest)


def _look(manifest: Path, root: Path) -> tuple[Study, Plan, Layout, list[Status]]:
    study = _load(manifest)
    from engine.plan import Plan
    from store.layout import Layout

    the_plan, layout = Plan(study), Layout(root, study.manifest.name)
    return study, the_plan, layout, list(the_plan.inspect(layout).values())


def _print_json(statuses: list[Status]) -> None:
    from engine.summary import status_rows

    typer.echo(json.dumps({"stages": status_rows(statuses)}, indent=1))


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; every error a person can mend is one line, without a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = app(standalone_mode=False)  # typer turns an interruption into code 130
    except Exception as error:
        known = _known_error(error)
        if known is None:
            raise
        _die(*known)
    if code == INTERRUPTED:
        _die("interrupted; the same command goes on from here", code)
    sys.exit(code)


def _known_error(error: Exception) -> tuple[str, int] | None:
    """Return the words and exit code of an error that needs no traceback."""
    from typer.exceptions import TyperException

    from manifests.errors import InputError

    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, TyperException):
        return error.format_message(), 2
    from engine.models import ModelUnavailable
    from store.lock import RunLocked

    if isinstance(error, RunLocked | ModelUnavailable | OSError):
        return str(error), 1
    return None


def _die(message: str, code: int) -> Any:
    sys.stdout.flush()
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
