"""Work done by jobs of a real SLURM on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from engine.machines.cluster import open_cluster
from engine.machines.workers import MODEL_SLOT, new_run
from manifests.profile import read_profile
from tests.elsewhere import assert_same_results, done_shards
from tests.slurm import PARTITION, Slurm
from tests.test_faults import assert_complete, kept, wait_for, write_study
from tests.test_run import EMOVEC, ROOT, assert_same_bytes, emovec
from tests.tiny import make_tiny_model, write_corpus_files, write_manifest


def slurm_profile(folder: Path, **changes: object) -> Path:
    settings = {
        "jobs": 2,
        "partition": PARTITION,
        "cores": 1,
        "memory": "4GB",
        "time": "00:30:00",
        "interface": "lo",
    }
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "slurm": {**settings, **changes}}))
    return file


def test_slurm_jobs_survive_scancel_and_give_the_bits_of_one_machine(
    slurm: Slurm, at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, home = at_home
    root, profile = tmp_path / "runs", slurm_profile(tmp_path)
    command = [*EMOVEC, "analyze", str(manifest), "--root", str(root), "--profile", str(profile)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=slurm.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        seen: dict[str, str] = {}
        deadline = time.monotonic() + 300
        while not 1 <= done_shards(root) < 6:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            seen |= slurm.running()
            time.sleep(0.2)
        assert set(seen.values()) == {"n1", "n2"}
        victim = next(iter(slurm.running()))
        slurm.say("scancel", victim)
        printed, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, printed
    assert "submitting 2 SLURM jobs" in printed
    assert_same_results(root, home)
    deadline = time.monotonic() + 30
    while slurm.running():  # nothing is left in the queue
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_slurm_jobs_end_before_their_time_limit_and_the_next_go_on(
    slurm: Slurm, tmp_path: Path
) -> None:
    """One job at a time, of the least time there may be: several are needed, none is cut off."""
    write_corpus_files(tmp_path, per_emotion=5000, neutral=8)
    manifest = write_manifest(tmp_path, make_tiny_model(tmp_path / "model", layers=24))
    profile, root = slurm_profile(tmp_path, jobs=1, time="00:04:00"), tmp_path / "runs"
    before = set(slurm.states())
    process = subprocess.Popen(
        [*EMOVEC, "extract", str(manifest), "--root", str(root), "--profile", str(profile)],
        cwd=ROOT, env=slurm.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    states: dict[str, str] = {}
    try:
        while process.poll() is None:
            now = slurm.states()
            states |= {job: state for job, state in now.items() if job not in before}
            time.sleep(1)
        printed = process.communicate()[0]
    finally:
        process.kill()
    assert process.returncode == 0, printed
    last = max(states, key=int)
    assert len(states) > 1, printed
    ended = {job: state for job, state in states.items() if job != last}
    assert set(ended.values()) == {"COMPLETED"}, states  # neither TIMEOUT nor CANCELLED
    store = "study/cells/tiny@own/residuals.zarr"
    emovec("extract", manifest, "--root", tmp_path / "home")
    assert_same_bytes(root / store, tmp_path / "home" / store)


def test_what_slurm_does_not_take_is_one_line_and_nothing_is_begun(
    slurm: Slurm, at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, _ = at_home
    root = tmp_path / "runs"

    def refused(environment: dict[str, str], **changes: object) -> str:
        profile = slurm_profile(tmp_path, **changes)
        done = subprocess.run(
            [*EMOVEC, "run", str(manifest), "--root", str(root), "--profile", str(profile)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 2, done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not list(root.rglob("*.zarr"))
        return done.stderr

    assert "slurm.partition: SLURM does not take such a job" in refused(
        slurm.environment, partition="nowhere"
    )
    assert "slurm.interface: this machine has no network interface 'ib9'; it has" in refused(
        slurm.environment, interface="ib9"
    )
    assert "slurm.gpus: SLURM does not take such a job" in refused(slurm.environment, gpus=1)
    away = {**slurm.environment, "PATH": str(Path(sys.executable).parent)}
    assert "there is no sbatch here" in refused(away)


def limited(folder: Path, slurm: Slurm, jobs: int) -> dict[str, str]:
    """Return an environment whose sbatch takes so many jobs, as under a limit of an account."""
    sbatch = shutil.which("sbatch", path=slurm.environment["PATH"])
    program = folder / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'case "$1" in --test-only) exec {sbatch} "$@";; esac\n'
        f'exec 9>"{folder}/one-at-a-time"; flock 9\n'
        f'test $(squeue -h -t PENDING,RUNNING | wc -l) -lt {jobs} && exec {sbatch} "$@"\n'
        'echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; exit 1\n'
    )
    program.chmod(0o755)
    return {**slurm.environment, "PATH": f"{program.parent}:{slurm.environment['PATH']}"}


def test_an_sbatch_that_refuses_after_the_trial_is_one_line_in_its_words(
    slurm: Slurm, tiny_model: Path, tmp_path: Path
) -> None:
    manifest, root = write_manifest(tmp_path, tiny_model), tmp_path / "runs"
    done = subprocess.run(
        [*EMOVEC, "extract", str(manifest), "--root", str(root),
         "--profile", str(slurm_profile(tmp_path, jobs=3))],
        cwd=ROOT, env=limited(tmp_path, slurm, 0), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("SLURM takes no jobs: AssocMaxSubmitJobLimit") == 1
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_limit_on_jobs_is_told_once_and_those_that_are_taken_work(
    slurm: Slurm, at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, home = at_home
    root = tmp_path / "runs"
    done = subprocess.run(
        [*EMOVEC, "analyze", str(manifest), "--root", str(root),
         "--profile", str(slurm_profile(tmp_path, jobs=4))],
        cwd=ROOT, env=limited(tmp_path, slurm, 1), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SLURM took 1 of 4 jobs: AssocMaxSubmitJobLimit") == 1
    assert_same_results(root, home)


@pytest.mark.slow
def test_a_node_that_cannot_work_gets_no_more_jobs(
    slurm: Slurm, at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    """One of two nodes has another checkout of the program."""
    other = tmp_path / "checkout"
    for room in ("manifests", "store", "analysis", "engine"):
        shutil.copytree(ROOT / room, other / room)
    (other / "engine" / "extra.py").write_text("")
    manifest, home = at_home
    root = tmp_path / "runs"
    setup = [f'test "$SLURMD_NODENAME" != n1 || cd {other}']
    done = subprocess.run(
        [*EMOVEC, "analyze", str(manifest), "--root", str(root),
         "--profile", str(slurm_profile(tmp_path, setup=setup))],
        cwd=ROOT, env=slurm.environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("runs other source than") == 1
    assert done.stdout.count("no more jobs are submitted to n1") == 1
    assert_same_results(root, home)


@pytest.mark.slow
def test_jobs_that_end_before_their_workers_report_are_one_line(
    slurm: Slurm, at_home: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, _ = at_home
    profile = slurm_profile(tmp_path, jobs=1, setup=["exit 3"])
    done = subprocess.run(
        [*EMOVEC, "run", str(manifest), "--root", str(tmp_path / "runs"),
         "--profile", str(profile)],
        cwd=ROOT, env=slurm.environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "3 SLURM jobs ended before their workers reported; look at the newest" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not slurm.running()


@pytest.mark.slow
def test_a_model_writes_in_several_jobs_and_one_that_is_cancelled_loses_nothing(
    slurm: Slurm, tiny_model: Path, tmp_path: Path
) -> None:
    corpora, root = ("own", "more"), tmp_path / "runs"
    manifest = write_study(tmp_path, tiny_model, emotions=60, stories=6, corpora=corpora)
    process = subprocess.Popen(
        [*EMOVEC, "generate", str(manifest), "--root", str(root),
         "--profile", str(slurm_profile(tmp_path))],
        cwd=ROOT, env=slurm.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(lambda: all(len(kept(root, name)) > 20 for name in corpora), process, 400)
        before = {name: kept(root, name) for name in corpora}
        jobs = slurm.running()
        logs = list((root / "study" / "logs").glob("write-tiny*.log"))
        slurm.say("scancel", next(iter(jobs)))
        printed, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, printed
    assert set(jobs.values()) == {"n1", "n2"}
    assert len(logs) == 2, "each job writes a corpus of its own"
    for name in corpora:
        assert len(before[name]) < 360
        assert_complete(root, 360, before[name], name)


def test_jobs_are_submitted_while_there_is_work_and_given_back_when_idle(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    profile, document = read_profile(str(slurm_profile(tmp_path, idle="00:00:02")))
    said: list[str] = []

    def until(n_jobs: int) -> None:
        deadline = time.monotonic() + 60
        while len(slurm.running()) != n_jobs or len(workers.addresses()) != n_jobs:
            assert time.monotonic() < deadline, (slurm.running(), said)
            time.sleep(0.2)

    run = new_run((str(tmp_path),))
    with open_cluster(
        profile, document, run, lambda event: said.append(str(event)), tmp_path, 1
    ) as workers:
        until(1)
        (first,) = slurm.running()
        busy = workers.submit(time.sleep, 40.0, resources=MODEL_SLOT)
        workers.wanted = 2
        until(2)
        workers.wanted = 1
        until(1)
        assert list(slurm.running()) == [first]
        assert not busy.done()
    assert sum("idle for 00:00:02" in what for what in said) == 1
