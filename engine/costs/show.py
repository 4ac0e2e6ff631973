"""Shows what plans cost: work, models, this machine, and whether it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.costs import Costs
from engine.costs.elapsed import Elapsed, elapsed
from engine.costs.host import Host
from engine.costs.machines import GPUS, Gpu, Shares, gpu_hours
from engine.costs.memory import MEMORY_SHARE, Need, Room
from engine.costs.workload import Work
from engine.summary import MAX_STAGES, human_bytes
from manifests.profile import Profile
from manifests.resolve import Study

SPEEDS = {"A100": GPUS["A100-80GB"], "H100, H200": GPUS["H100"]}
"""GPUs of one speed, whatever their memory."""


def cost_rows(costs: Costs, shares: Shares) -> dict[str, Any]:
    """Return the costs as plain rows, for `--json`: of stages, of models, of this machine."""
    return {
        "host": dataclasses.asdict(costs.host),
        "work": [
            {
                **dataclasses.asdict(work),
                "gpu_hours": {name: _hours(work, gpu, shares) for name, gpu in GPUS.items()},
            }
            for work in costs.works
        ],
        "models": [
            {
                **dataclasses.asdict(need),
                "gpus": {name: need.gpus(gpu, MEMORY_SHARE) for name, gpu in GPUS.items()},
            }
            for need in costs.needs
        ],
        "unknown": costs.unknown,
        "shared": costs.shared,
        "measured": dataclasses.asdict(costs.rates),
        "utilisation": dataclasses.asdict(shares),
    }


def print_costs(console: Console, costs: Costs, shares: Shares, manifests: Sequence[str]) -> None:
    """Print what stages that are not done have to do, and what models need, on named GPUs.

    Args:
        console: to print on.
        costs: of all plans.
        shares: of a GPU's peak that reading and writing are taken to reach.
        manifests: that are planned, as they were named.
    """
    works = [work for work in costs.works if work.source != "done"]
    if works:
        console.print(_work_table(works, costs, shares))
        for sentence in _about_work(works, costs, shares):
            console.print(sentence, soft_wrap=True)
    if costs.needs:
        console.print(_model_table(costs.needs))
    if costs.unknown:
        console.print(
            "configs that are not on this machine, so that their models' cost is not known: "
            f"{', '.join(costs.unknown)}\n"
            f"to bring them here: emovec fetch --plan-only {' '.join(manifests)}",
            soft_wrap=True,
        )
    for stage, owner in costs.shared.items():
        console.print(f"{stage} is taken over from {owner}, and not counted again", soft_wrap=True)
    if works:
        _print_host(console, costs.host)


def phases_on(
    profile: Profile | None, costs: Costs, shares: Shares, studies: Sequence[Study]
) -> list[Elapsed]:
    """Return how long each phase lasts on a profile's jobs; nothing where it names no GPUs."""
    slurm = None if profile is None else profile.slurm
    if slurm is None or not slurm.gpus or slurm.gpu is None:
        return []
    gpus = {  # by the names that models have in `Costs`
        f"{study.manifest.name}/{name}" if len(studies) > 1 else name: entry.tensor_parallel_size
        for study in studies
        for name, entry in study.manifest.models.items()
    }
    return list(elapsed(costs.works, gpus, slurm, shares))


def print_jobs(
    console: Console,
    costs: Costs,
    shares: Shares,
    studies: Sequence[Study],
    profile: Profile | None,
) -> None:
    """Print which models get jobs of their own, and how long the work takes on all jobs.

    Args:
        console: to print on.
        costs: of all plans.
        shares: of a GPU's peak that reading and writing are taken to reach.
        studies: that have the models.
        profile: of the jobs; this machine when None.
    """
    slurm = None if profile is None else profile.slurm
    if slurm is None:
        return
    phases = phases_on(profile, costs, shares, studies)
    if any(phase.hours for phase in phases):
        each = "a GPU" if slurm.gpus == 1 else f"{slurm.gpus} GPUs"
        jobs = "1 job" if slurm.jobs == 1 else f"{slurm.jobs} jobs"
        console.print(
            f"on {jobs} of {each} ({slurm.gpu}): {', '.join(map(_lasting, phases))}; the queue "
            "and the loading of models come on top",
            soft_wrap=True,
        )
    for study in studies:
        for name, entry in study.manifest.models.items():
            gpus = entry.tensor_parallel_size
            sized = slurm.sized(gpus)
            if sized != slurm:
                console.print(
                    f"{name} is spread over {gpus} GPUs: jobs of {sized.gpus} GPUs, "
                    f"{sized.cores} cores and {sized.memory}, {sized.jobs} at once",
                    soft_wrap=True,
                    markup=False,
                )


def _lasting(phase: Elapsed) -> str:
    hours = f"{'about' if phase.known else 'at least'} {_duration(phase.hours)} of {phase.phase}"
    if 0 < phase.alone == phase.hours:
        return f"{hours} (the longest by itself)"
    return hours


def print_fit(console: Console, needs: Sequence[Need], room: Room, unknown: Sequence[str]) -> None:
    """Print that what is left fits, as far as that is known.

    Args:
        console: to print on.
        needs: of the models that are loaded.
        room: what there is for one.
        unknown: models whose config is not at hand.
    """
    what = "what is known of it fits" if unknown else "it fits"
    if not needs:
        console.print("whether it fits is not known before the configs are here")
        return
    if room.n_gpus and room.gpu_bytes is not None:
        most = max(needs, key=lambda need: need.weights + need.cache)
        taken = f"{most.model} takes most, {human_bytes(most.weights + most.cache)}"
    elif room.n_gpus == 0 and room.memory is not None:
        most = max(needs, key=lambda need: need.host(on_gpus=False))
        taken = f"{most.model} takes most, {human_bytes(most.host(on_gpus=False))}"
    else:
        console.print(f"whether it fits is not known: {room.name} does not say which GPUs it has")
        return
    console.print(f"{what}: {room}; {taken}", soft_wrap=True)


def _work_table(works: list[Work], costs: Costs, shares: Shares) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("work to do", no_wrap=True, overflow="fold")
    for column in ("requests", "tokens", "written", "PFLOP", *SPEEDS, "here"):
        table.add_column(column, justify="right")
    table.add_column("known from")
    totals: dict[str, list[float | None]] = {name: [] for name in (*SPEEDS, "here")}
    for work in works if len(works) <= MAX_STAGES else _by_model(works):
        rate = costs.rates.writing if work.writes else costs.rates.reading
        hours = {name: _hours(work, gpu, shares) for name, gpu in SPEEDS.items()}
        hours["here"] = None if rate is None or work.flops is None else work.flops / rate / 3600
        for name, spent in hours.items():
            if name != "here" or rate is not None:
                totals[name].append(spent)
        table.add_row(
            work.stage,
            _count(work.requests),
            _count(work.tokens),
            _count(work.output_tokens),
            "?" if work.flops is None else f"{work.flops / 1e15:,.3g}",
            *(_duration(hours[name]) for name in SPEEDS),
            "-" if rate is None else _duration(hours["here"]),
            _known_from(work),
        )
    if len(works) > 1:
        table.add_row("together", *[""] * 4, *(_together(spent) for spent in totals.values()), "")
    return table


def _together(spent: Sequence[float | None]) -> str:
    """Return the sum of durations, `at least` where some are not known, `?` where none is."""
    known = [hours for hours in spent if hours is not None]
    if not known:
        return "?" if spent else "-"
    return f"{'' if len(known) == len(spent) else 'at least '}{_duration(sum(known))}"


def _known_from(work: Work) -> str:
    if work.kept is None:
        return work.source
    other = work.kept_from not in ("", "expected_kept") and work.source == "expected"
    whose = f" (as in {work.kept_from})" if other else ""
    return f"{work.source}, {work.kept:.0%} kept{whose}"


def _about_work(works: Sequence[Work], costs: Costs, shares: Shares) -> Iterable[str]:
    """Yield what the hours and the requests rest on."""
    yield (
        f"on one GPU, at {shares.reading:.0%} of the data sheet's peak for reading and "
        f"{shares.writing:.0%} for writing (--utilisation says otherwise); here: by what was read "
        "and written in this run"
    )
    for gpu, (reading, writing) in costs.rates.utilisation.items():
        reached = [
            f"{share:.1%} for {what}"
            for what, share in (("reading", reading), ("writing", writing))
            if share is not None
        ]
        taken = f"{reading or shares.reading:.3g},{writing or shares.writing:.3g}"
        yield f"measured in this run on {gpu}: {' and '.join(reached)}; --utilisation {taken}"
    if any(work.kept_from == "expected_kept" for work in works):
        yield (
            "kept: the share of replies that pass the checks, as `generate.expected_kept` says "
            "until there is a journal"
        )


def _model_table(needs: Iterable[Need]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\nmodel", no_wrap=True, overflow="fold")
    for column in ("\nto", "\ndtype", "\nweights", "\ncache"):
        table.add_column(column, justify="right")
    for name in GPUS:
        table.add_column(f"GPUs\n{name}", justify="right")
    for need in needs:
        table.add_row(
            need.model,
            "write" if need.writes else "read",
            need.dtype,
            human_bytes(need.weights),
            human_bytes(need.cache) if need.cache else "-",
            *(str(need.gpus(gpu, MEMORY_SHARE) or "more than 8") for gpu in GPUS.values()),
        )
    return table


def _print_host(console: Console, host: Host) -> None:
    free = "" if host.free is None else f", {host.free / 1e9:,.0f} GB are free"
    weights = (
        f"; {human_bytes(host.downloads)} of weights to download, "
        f"{host.cache_free / 1e9:,.0f} GB are free there"
        if host.downloads
        else ""
    )
    analysis = (
        "not known yet" if host.core_hours is None else f"about {host.core_hours:,.1f} core-hours"
    )
    size = "about" if host.whole else "at least"
    console.print(
        f"this machine: {size} {host.disk / 1e9:,.2f} GB to write{free}{weights}; up to "
        f"{host.memory / 1e9:,.1f} of {host.total / 1e9:,.1f} GB of memory at once; analysis "
        f"{analysis}",
        soft_wrap=True,
    )


def _by_model(works: list[Work]) -> list[Work]:
    """Return the work of each model, writing and reading apart, over all corpora."""
    found: dict[tuple[bool, str], list[Work]] = {}
    for work in works:
        found.setdefault((work.writes, work.model), []).append(work)
    return [_summed(writes, model, some) for (writes, model), some in found.items()]


def _summed(writes: bool, model: str, some: list[Work]) -> Work:
    def together(numbers: Iterable[float | None]) -> Any:
        values = list(numbers)
        return None if None in values else sum(v for v in values if v is not None)

    requests = together(work.requests for work in some)
    replies = [(work.requests or 0, work.kept) for work in some if work.kept is not None]
    asked = sum(n for n, _ in replies)
    whose = list(dict.fromkeys(work.kept_from for work in some))
    return dataclasses.replace(
        some[0],
        stage=f"{model} {'writes' if writes else 'reads'} {_corpora(len(some))}",
        requests=requests,
        tokens=together(work.tokens for work in some),
        output_tokens=together(work.output_tokens for work in some) if writes else None,
        flops=together(work.flops for work in some),
        source=" and ".join(dict.fromkeys(work.source for work in some)),
        kept=sum(n * kept for n, kept in replies) / asked if asked else None,
        kept_from=whose[0] if len(whose) == 1 else "",
    )


def _corpora(n: int) -> str:
    return "1 corpus" if n == 1 else f"{n} corpora"


def _hours(work: Work, gpu: Gpu, shares: Shares) -> float | None:
    if work.flops is None:
        return None
    share = shares.writing if work.writes else shares.reading
    return gpu_hours(work.flops, gpu, work.dtype, share)


def _duration(hours: float | None) -> str:
    """Return hours as `14 h`, `3.2 min` or `8 s`; `?` where they are not known."""
    if hours is None:
        return "?"
    for unit, size in (("h", 1.0), ("min", 1 / 60)):
        if hours >= size:
            return f"{hours / size:,.3g} {unit}"
    return f"{hours * 3600:.2g} s"


def _count(number: float | None) -> str:
    if number is None:
        return ""
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:,.3g}T"
