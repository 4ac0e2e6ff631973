"""A real SLURM on this machine: a controller and two nodes on loopback, as another user would."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
NODES = ("n1", "n2")
PARTITION = "tiny"

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=8000
PartitionName={partition} Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs that are not here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@dataclass(frozen=True)
class Slurm:
    """A running cluster.

    Attributes:
        environment: variables under which its commands find it.
    """

    environment: dict[str, str]

    def say(self, *command: str) -> str:
        """Run one of SLURM's commands and return what it says."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=60, check=True
        )
        return done.stdout

    def running(self) -> dict[str, str]:
        """Return the node of each running job, by its number."""
        rows = self.say("squeue", "-h", "-t", "RUNNING", "-o", "%A %N").splitlines()
        return dict(row.split() for row in rows)

    def states(self) -> dict[str, str]:
        """Return the state of each job by its number, of those that ended within minutes too."""
        rows = self.say("squeue", "-h", "-t", "all", "-o", "%A %T").splitlines()
        return dict(row.split() for row in rows)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Slurm]:
    """Start a cluster in a folder with a short path, and end all of it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    environment = {
        **os.environ,
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    (folder / "slurm.conf").write_text(
        CONF.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            ports=_free_ports(3),
            partition=PARTITION,
        )
    )
    munge = [f"--{what}={folder}/munge.{end}" for what, end in MUNGE.items()]
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *munge],
        ["slurmctld", "-D", "-c"],
        *(["slurmd", "-D", "-N", node] for node in NODES),
    ]
    processes = []
    try:
        for daemon in daemons:
            with (folder / f"{Path(daemon[0]).name}.out").open("ab") as out:
                processes.append(
                    subprocess.Popen(
                        daemon, env=environment, stdout=out, stderr=out, start_new_session=True
                    )
                )
            time.sleep(0.3)
        slurm = Slurm(environment)
        deadline = time.monotonic() + 60
        while True:
            tried = subprocess.run(
                ["sinfo", "-h", "-o", "%D %t"], capture_output=True, text=True, env=environment
            )
            if tried.stdout.split() == ["2", "idle"]:
                break
            assert time.monotonic() < deadline, tried
            time.sleep(0.3)
        yield slurm
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


MUNGE = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
