"""Profiles: the shipped ones are right, and a mistake is one line with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.machines.submission import job_settings
from manifests.errors import InputError
from manifests.profile import SHIPPED, Slurm, read_profile


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_profiles_are_read_by_name_and_by_path(file: Path) -> None:
    profile, _ = read_profile(file.stem)
    assert profile == read_profile(str(file))[0]
    assert profile.slurm is not None
    settings = job_settings(profile.slurm, "emovec-x")
    threads = settings["worker_extra_args"][settings["worker_extra_args"].index("--nthreads") + 1]
    assert int(threads) == min(2, profile.slurm.cores // profile.slurm.workers_per_job)


def test_what_a_profile_says_reaches_the_job(tmp_path: Path) -> None:
    from dask_jobqueue.slurm import SLURMJob

    file = tmp_path / "mine.yaml"
    file.write_text(
        "version: 1\n"
        "slurm:\n"
        "  partition: gpu\n  account: us\n  time: '1-02:00:00'\n  gpus: 4\n  cores: 8\n"
        "  workers_per_job: 4\n  memory: 100GB\n  interface: ib0\n"
        "  directives: [--qos=long]\n  setup: [module load cuda]\n"
        "  python: apptainer exec --nv a.sif python\n"
    )
    profile, _ = read_profile(str(file))
    assert profile.slurm is not None
    script = SLURMJob("tcp://h:1", "w", **job_settings(profile.slurm, "emovec-x")).job_script()
    lines = script.splitlines()
    for wanted in ("-p gpu", "-A us", "-t 1-02:00:00", "--gres=gpu:4", "--qos=long", "-J emovec-x"):
        assert f"#SBATCH {wanted}" in lines
    assert "module load cuda" in lines
    worker = lines[-1]
    assert worker.startswith("apptainer exec --nv a.sif python -m distributed.cli.dask_worker")
    for wanted in (
        *("--nworkers 4", "--nthreads 2", "--resources model=1", "--preload engine.tasks"),
        *("--no-dashboard", "--interface ib0", f"--lifetime $(({26 * 3600 - 120} - SECONDS))s"),
    ):
        assert wanted in worker


def test_jobs_are_as_large_as_a_model_needs() -> None:
    whole = Slurm(jobs=2, gpus=8, cores=64, memory="512GB", workers_per_job=8)
    assert whole.sized(1) == whole
    assert whole.sized(2).workers_per_job == 4
    assert whole.sized(8) == whole.model_copy(update={"workers_per_job": 1})
    single = Slurm(jobs=8, gpus=1, cores=16, memory="120.5 GB")
    larger = {"jobs": 2, "gpus": 4, "cores": 64, "memory": "482GB"}
    assert single.sized(4) == single.model_copy(update=larger)
    assert "--gres=gpu:4" in job_settings(single.sized(4), "x")["job_extra_directives"]
    assert Slurm(cores=4).sized(4) == Slurm(cores=4)  # a profile without GPUs


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("slurm: {}", "version: this key is missing"),
        ("version: 1", "give exactly one of scheduler and slurm"),
        ("version: 1\nslurm: {time: 4h}", ":2: slurm.time: '4h' is not a time limit"),
        ("version: 1\nslurm: {memory: lots}", "slurm.memory: 'lots' is not a size"),
        ("version: 1\nslurm: {gpu: V100}", "slurm.gpu: expected"),
        ("version: 1\nslurm: {setup: ls}", "slurm.setup: expected a list of lines"),
        ('version: 1\nslurm: {setup: ["a\\nb"]}', "expected one line that is not empty"),
        ("version: 1\nslurm: {gpus: 3, workers_per_job: 2}", "3 gpus cannot be divided among 2"),
        ("version: 1\nslurm: {partitions: a}", "unknown key; did you mean 'partition'?"),
        ("- a", "not a profile: expected keys such as version and slurm"),
    ],
)
def test_a_mistake_in_a_profile_is_one_line(text: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_profile(str(file))
    assert what in str(error.value)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)
