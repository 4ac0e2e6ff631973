"""Runs one command and makes sure that nothing of it outlives the process that asked for it.

Started as a script in a session of its own, with a pipe from its owner as standard input. It ends
its whole process group, itself included, when the command ends, when the owner closes the pipe, or
when the owner dies (the kernel closes the pipe then), and takes the command's folder of sockets
away, which a killed vLLM would leave. Standard library only, so it starts at once.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run `sys.argv[3:]` with file descriptor `sys.argv[2]` kept open, and wait.

    The folder `sys.argv[1]` goes when the command does.
    """
    sockets, inherited = sys.argv[1], int(sys.argv[2])
    libc = ctypes.CDLL(None)

    def die_with_guard() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    command = subprocess.Popen(
        sys.argv[3:],
        stdin=subprocess.DEVNULL,
        pass_fds=(inherited,),
        preexec_fn=die_with_guard,
    )
    os.close(inherited)
    ended = os.pidfd_open(command.pid)
    select.select([sys.stdin, ended], [], [])
    shutil.rmtree(sockets, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
