"""The command line: `emovec run MANIFEST` and its parts.

Exit 0 done, 1 failed, 2 bad input, 130 interrupted and resumable by the same command.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.suite import PARTS
from engine.costs.machines import READING, WRITING
from engine.ending import INTERRUPTED, leave, run_program

if TYPE_CHECKING:
    from rich.console import Console

    from engine.costs.machines import Shares
    from engine.job import Job
    from engine.plan import Plan, Status
    from manifests.document import Document
    from manifests.profile import Profile
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
Root = Annotated[
    str,
    typer.Option(
        "--root", help="Folder that holds runs, or an object store: s3://bucket/folder, gs://..."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Work on the workers of this Dask scheduler, such as tcp://10.0.0.1:8786; "
        "they see the run's folder under the same path.",
    ),
]
ProfileFile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="Work where this profile says, such as a SLURM cluster: a YAML file, or the name of "
        "a shipped one.",
    ),
]
Manifests = Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests (YAML).")]
EveryStage = Annotated[
    bool, typer.Option("--all", help="List every stage, not a row for each kind of many.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
RUNS = "runs"


@app.command()
def run(
    manifests: Manifests,
    root: Root = RUNS,
    scheduler: Scheduler = None,
    profile: ProfileFile = None,
) -> None:
    """Do everything that manifests ask for and is not done yet."""
    _execute("run", manifests, root, scheduler, profile)


@app.command()
def generate(
    manifests: Manifests,
    root: Root = RUNS,
    scheduler: Scheduler = None,
    profile: ProfileFile = None,
) -> None:
    """Write or import the corpora only."""
    _execute("generate", manifests, root, scheduler, profile)


@app.command()
def extract(
    manifests: Manifests,
    root: Root = RUNS,
    scheduler: Scheduler = None,
    profile: ProfileFile = None,
) -> None:
    """Corpora, and reading them into story vectors."""
    _execute("extract", manifests, root, scheduler, profile)


@app.command()
def analyze(
    manifests: Manifests,
    root: Root = RUNS,
    scheduler: Scheduler = None,
    profile: ProfileFile = None,
) -> None:
    """Everything up to the tables."""
    _execute("analyze", manifests, root, scheduler, profile)


@app.command()
def steer(
    manifests: Manifests,
    root: Root = RUNS,
    scheduler: Scheduler = None,
    profile: ProfileFile = None,
) -> None:
    """Add directions to models while they write, and measure what that does."""
    for manifest in manifests:
        study = _load(manifest)
        if study.steered is None:
            from manifests.errors import InputError

            what = "nothing is said of steering; add `steering: {}` for the defaults"
            raise InputError(study.document.problem((), what))
    _execute("steer", manifests, root, scheduler, profile)


@app.command()
def report(
    manifests: Manifests,
    to: Annotated[
        Path | None, typer.Option("--to", help="File for the page that sets runs side by side.")
    ] = None,
    root: Root = RUNS,
) -> None:
    """Tables, pictures and page of what is measured, without a model; of several runs one page."""
    side_by_side = len(manifests) > 1 or to is not None
    _execute("report", manifests, root, None, None, closing=not side_by_side)
    if not side_by_side:
        return
    from engine.page import page_job, write_page
    from engine.plan import Plan
    from store.layout import layout_of

    studies = [_load(file) for file in manifests]
    names = [study.manifest.name for study in studies]
    jobs = [
        page_job(Plan(study), layout_of(root, name))
        for study, name in zip(studies, names, strict=True)
    ]
    target = to or layout_of(root, names[0]).root / "side-by-side" / f"{'+'.join(names)}.html"
    write_page(jobs, target)
    typer.echo(f"\npage\n  {target}")


@app.command()
def plan(
    manifests: Manifests,
    root: Root = RUNS,
    profile: ProfileFile = None,
    utilisation: Annotated[
        str | None,
        typer.Option(
            "--utilisation",
            metavar="READ,WRITE",
            help=f"Shares of a GPU's peak to cost reading and writing by; {READING},{WRITING}.",
        ),
    ] = None,
    every: EveryStage = False,
    as_json: AsJson = False,
) -> None:
    """Show what would be done, how large it will be, and whether it fits. Starts nothing.

    What does not fit comes last, with exit code 2: `emovec run` would refuse it.
    """
    studies = [_load(manifest) for manifest in manifests]
    shares, where = _shares(utilisation), _where(None, profile)
    from engine.costs import check_fit, plan_costs
    from engine.costs.memory import room_of
    from engine.costs.show import cost_rows, phases_on, print_costs, print_fit, print_jobs
    from engine.job import open_job, require_distinct
    from engine.models import remote_code
    from engine.summary import print_status
    from manifests.errors import InputError

    require_distinct(studies)
    jobs = [open_job(study, root) for study in studies]
    costs = plan_costs(jobs)
    place = where and where[0]
    refusal = None
    try:
        check_fit(jobs, "run", place)
    except InputError as error:
        refusal = error
    if as_json:
        phases = [dataclasses.asdict(p) for p in phases_on(place, costs, shares, studies)]
        rows = cost_rows(costs, shares)
        _print_json(jobs, {**rows, "phases": phases, "refused": refusal and str(refusal)})
    else:
        console = _console()
        labels = [f"{job.layout.run_name}/" if len(jobs) > 1 else "" for job in jobs]
        found = [
            (label, s)
            for label, job in zip(labels, jobs, strict=True)
            for s in job.statuses.values()
        ]
        print_status(console, found, every)
        print_costs(console, costs, shares, [str(manifest) for manifest in manifests])
        for sentence in dict.fromkeys(s for study in studies for s in remote_code(study)):
            console.print(sentence, style="bold", markup=False, soft_wrap=True)
        for job in jobs:
            todo = len(job.pending("run"))
            console.print(
                f"{todo} of {len(job.statuses)} stages to do in {job.layout.run}", soft_wrap=True
            )
        print_jobs(console, costs, shares, studies, place)
        if refusal is None and any(job.models("run") for job in jobs):
            print_fit(console, costs.needs, room_of(place), costs.unknown)
    if refusal is not None:
        raise refusal


@app.command()
def status(
    manifest: ManifestFile, root: Root = RUNS, every: EveryStage = False, as_json: AsJson = False
) -> None:
    """Show how far a run is, and what it found once it is done."""
    from engine.job import open_job
    from engine.plan import State

    job = open_job(_load(manifest), root)
    if as_json:
        return _print_json([job])
    from engine.summary import about_tables, print_results, print_status, print_summary

    console, statuses = _console(), list(job.statuses.values())
    print_status(console, [("", status) for status in statuses], every)
    if all(s.state is State.DONE for s in statuses if s.stage.kind == "tables"):
        with about_tables(job.layout):
            print_results(console, job.plan, job.layout)
            print_summary(console, job.plan, job.layout)
    if any(s.state is State.DONE for s in statuses if s.stage.kind == "effects"):
        from engine.steering.summary import print_steering

        with about_tables(job.layout):
            print_steering(console, job.layout)
    return None


@app.command()
def verify(
    manifest: ManifestFile,
    root: Root = RUNS,
    again: Annotated[
        int,
        typer.Option(
            "--recompute", metavar="N", min=0, help="Texts of each cell that its model reads again."
        ),
    ] = 0,
    mend: Annotated[
        bool, typer.Option("--repair", help="Move aside what is damaged, for the next run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold everything on disk against its checksums and against itself. Exit 1 for damage."""
    from engine.verification.command import verify_run

    if not verify_run(_load(manifest), manifest, root, again, mend, as_json, _console()):
        raise typer.Exit(1)


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
def vectors(
    manifest: ManifestFile,
    to: Annotated[Path, typer.Option("--to", help="Folder to make, one in it for each cell.")],
    cell: Annotated[
        str | None, typer.Option("--cell", metavar="MODEL@CORPUS", help="Only this cell.")
    ] = None,
    layers: Annotated[
        str, typer.Option("--layers", help="Blocks, such as 3,10-20; all of the cell's.")
    ] = "all",
    window: Annotated[str, typer.Option("--window", help="Token window.")] = "no-first",
    contrast: Annotated[
        str, typer.Option("--contrast", help="both, neutral-pca or mean-centered.")
    ] = "both",
    root: Root = RUNS,
) -> None:
    """Write emotion vectors as safetensors with a card, for repeng, steering-vectors and hooks."""
    from engine.vectors import export_vectors, parse_wanted

    wanted = parse_wanted(cell, layers, window, contrast)
    _, the_plan, layout, statuses = _look(manifest, root)
    for found in export_vectors(the_plan, layout, statuses, wanted, to):
        directions = f"{found.n_directions} directions" if found.n_directions else "no directions"
        typer.echo(
            f"{found.folder}   {found.n_emotions} emotions, {directions}, {found.n_layers} layers"
        )


@app.command()
def read(
    cell: Annotated[str, typer.Argument(metavar="MODEL@CORPUS", help="A cell that was extracted.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Texts (UTF-8); - for standard input.")
    ],
    layers: Annotated[
        str | None,
        typer.Option(
            "--layer",
            "--layers",
            help="Blocks, such as 12 or 3,10-20 or all; the one that tells stories apart best.",
        ),
    ] = None,
    emotions: Annotated[
        str | None, typer.Option("--emotions", help="Such as happy,sad; all of the corpus'.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is a text.")] = False,
    per_text: Annotated[
        bool, typer.Option("--per-text", help="Means of texts only, no tokens.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File to write: .csv, .json, .parquet, or .html for a page."),
    ] = None,
    window: Annotated[str, typer.Option("--window", help="Token window.")] = "no-first",
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The model's folder, where it is not where it was."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    run: Annotated[
        str | None, typer.Option("--run", help="The run that extracted it; looked for.")
    ] = None,
    root: Root = RUNS,
) -> None:
    """Read emotion in any text, token by token, along a cell's emotion vectors."""
    from engine.detection.run import Request, read_emotions
    from manifests.errors import InputError, Problem

    if as_csv and as_json:
        raise InputError(Problem(Path("--csv"), None, "", "and --json are one too many"))
    form = "csv" if as_csv else "json" if as_json else "terminal"
    named = None if emotions is None else [e.strip() for e in emotions.split(",") if e.strip()]
    request = Request(
        cell=cell,
        files=files,
        by_line=lines,
        root=root,
        run=run,
        layers=layers,
        emotions=named,
        window=window,
        model=model,
        target=to,
        form=form,
        by_text=per_text,
        trust_remote_code=trust_remote_code,
    )
    try:
        read_emotions(request)
    except KeyboardInterrupt:
        leave("interrupted; no file was written, and the same command begins anew", INTERRUPTED)


@app.command()
def fetch(
    manifests: Manifests,
    descriptions: Annotated[
        bool,
        typer.Option("--plan-only", help="Of models only what `plan` needs: config, tokenizer."),
    ] = False,
) -> None:
    """Bring models and data sets to this machine, for nodes that have no network."""
    studies = [_load(manifest) for manifest in manifests]
    from rich.text import Text

    from engine.fetching import fetch_all
    from manifests.errors import one_line

    console, lacking = _console(), 0
    to_pin: dict[str, list[str]] = {"models": [], "corpora": []}
    with console.status("") as status:
        for found in fetch_all(studies, descriptions, lambda name: status.update(Text(name))):
            if found.problem:
                lacking += 1
                console.print(one_line(f"FAILED  {found.name}: {found.problem}"), soft_wrap=True)
                continue
            where = found.commit or found.folder or ""
            said = one_line(f"here    {found.name:<24} {found.origin}  {where}")
            console.print(said, soft_wrap=True)
            if found.commit is None or found.pinned:
                continue
            if found.kind == "model":
                to_pin["models"].append(f"{found.name}: {{revision: {found.commit}}}")
            else:
                to_pin["corpora"].append(f"{found.name}: {{import: {{revision: {found.commit}}}}}")
    for key, lines in to_pin.items():
        if lines:
            console.print(f"\nto pin what is here, put under {key}:", style="bold")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True)
    if lacking:
        console.print(f"\n{lacking} could not be had; the others are here", style="bold")
        raise typer.Exit(1)


@app.command()
def bench(
    part: Annotated[
        str,
        typer.Argument(metavar="[PART]", help=f"{', '.join(PARTS)}, or all."),
    ] = "all",
    model: Annotated[
        str | None, typer.Option("--model", help="A folder, or a shape such as llama-3.1-8b.")
    ] = None,
    weights: Annotated[str, typer.Option("--weights", help="trained or random.")] = "trained",
    gpu: Annotated[bool, typer.Option("--gpu", help="Refuse to measure a CPU.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds, all ways in each.")] = 3,
    out: Annotated[Path, typer.Option("--out", help="Folder for reports.")] = Path("bench"),
    root: Annotated[
        str | None, typer.Option("--root", help="An object store to measure storage in, too.")
    ] = None,
) -> None:
    """Measure this machine against what one would use instead; reports as JSON and Markdown."""
    from benchmarks.suite import commands, run_suite
    from engine.device import has_gpu
    from manifests.errors import InputError, Problem

    def refuse(option: str, what: str) -> InputError:
        return InputError(Problem(Path(option), None, "", what))

    if part not in (*PARTS, "all"):
        raise refuse("bench", f"no part {part!r}; known: {', '.join(PARTS)}, all")
    if weights not in ("trained", "random"):
        raise refuse("--weights", f"{weights!r} is neither trained nor random")
    if gpu and not has_gpu():
        raise refuse("--gpu", "there is no GPU here that may be used")
    parts = PARTS if part == "all" else (part,)
    failed = run_suite(commands(parts, model, weights, rounds, out.resolve(), root))
    typer.echo(f"\nreports\n  {out}")
    if failed:
        typer.echo(f"failed: {', '.join(failed)}")
        raise typer.Exit(1)


@app.command()
def models(
    manifest: Annotated[
        Path | None, typer.Argument(metavar="[MANIFEST]", help="List the models of this manifest.")
    ] = None,
) -> None:
    """List families and built-in models, or a manifest's models, and which backend reads them."""
    from engine.summary import print_families, print_models

    if manifest is None:
        print_families(_console())
    else:
        print_models(_console(), _load(manifest))


def _execute(
    command: str,
    manifests: list[Path],
    root: str,
    scheduler: str | None = None,
    profile: str | None = None,
    *,
    closing: bool = True,
) -> None:
    """Run a command's phases, print its closing words and exit with code 1 where a stage failed."""
    studies = [_load(manifest) for manifest in manifests]
    where = _where(scheduler, profile)
    from engine.plan import Plan
    from engine.progress import progress_lines
    from engine.run import run_studies
    from engine.summary import about_tables, print_outputs, print_results
    from store.layout import layout_of

    console = _console()
    with progress_lines(console) as listener:
        outcomes = run_studies(studies, root, command, listener, where)
    failed = sum(len(outcome.failed) for outcome in outcomes)
    if failed:
        console.print(f"{failed} stages failed; what is done is kept", style="bold")
        raise typer.Exit(1)
    if not closing:
        return
    for study in studies:
        layout = layout_of(root, study.manifest.name)
        if len(studies) > 1 and command not in ("generate", "extract"):
            console.print(f"\n{study.manifest.name}", style="bold")
        with about_tables(layout):
            if command in ("run", "report", "analyze"):
                print_results(console, Plan(study), layout)
            if study.steered is not None and command in ("run", "report", "steer"):
                from engine.steering.summary import print_steering

                print_steering(console, layout)
        if command in ("run", "report", "steer"):
            print_outputs(console, layout)
    if not any(outcome.done for outcome in outcomes):
        stages = sum(len(outcome.skipped) for outcome in outcomes)
        console.print(f"\nnothing to do: all {stages} stages are up to date")


def _where(scheduler: str | None, profile: str | None) -> tuple[Profile, Document] | None:
    """Return where the work is done, None for this machine."""
    if scheduler is None and profile is None:
        return None
    from manifests.errors import InputError, Problem
    from manifests.profile import read_profile, scheduler_profile

    if scheduler is not None and profile is not None:
        what = "give --scheduler or --profile, not both"
        raise InputError(Problem(Path("--scheduler"), None, "", what))
    return read_profile(str(profile)) if scheduler is None else scheduler_profile(scheduler)


def _load(manifest: Path) -> Study:
    from manifests.resolve import load_study

    return load_study(manifest)


def _look(manifest: Path, root: str) -> tuple[Study, Plan, Layout, list[Status]]:
    study = _load(manifest)
    from engine.job import open_job

    job = open_job(study, root)
    return study, job.plan, job.layout, list(job.statuses.values())


def _shares(given: str | None) -> Shares:
    """Return the shares of a GPU's peak that `READ,WRITE` gives."""
    from engine.costs.machines import Shares
    from manifests.errors import InputError, Problem, shorten

    if given is None:
        return Shares()
    try:
        reading, writing = (float(part) for part in given.split(","))
    except ValueError:
        reading = writing = 0.0
    if not (0 < reading <= 1 and 0 < writing <= 1):
        what = (
            f"{shorten(given)} is not two shares above 0 and up to 1, such as {READING},{WRITING}"
        )
        raise InputError(Problem(Path("--utilisation"), None, "", what))
    return Shares(reading, writing)


def _print_json(jobs: Sequence[Job], more: dict[str, Any] | None = None) -> None:
    from engine.summary import status_rows

    rows = [row for job in jobs for row in status_rows(job.statuses.values(), job.layout.run_name)]
    typer.echo(json.dumps({"stages": rows, **(more or {})}, indent=1))


def _console() -> Console:
    """Return a console that prints names and paths as they are: `[x]` is no markup in them."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120
    return console


def main() -> None:
    """Run the command line."""
    run_program(lambda: app(standalone_mode=False))


if __name__ == "__main__":
    main()
