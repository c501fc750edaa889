"""Slurm on this machine: munged, slurmctld and a slurmd per node, from Debian's packages, as root.

Each node has one GPU that is not there. There is no accounting, and no process is confined.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from tests.harness.process import free_port, wait_for

INSTALL = "apt-get install -y slurm-wlm munge (and run the tests as root)"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
CONF = """
ClusterName=lmtune
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=20
MessageTimeout=10
SchedulerParameters=sched_interval=1,defer_batch
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


def available() -> bool:
    """True where the programs are there and may be run."""
    return os.getuid() == 0 and all(map(shutil.which, PROGRAMS))


class SlurmCluster:
    """A cluster of so many nodes; `environment` is what a client of it needs."""

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._configure([f"node{n}" for n in range(nodes)])
        self._munge = self._run("munged", *self._munge_options())
        wait_for((self.folder / "munge.socket").exists, 20, "socket of munged")
        self._controller = self._run("slurmctld", "-D", "-i", "-f", self.environment["SLURM_CONF"])
        for name in self._names:
            self._nodes[name] = self._run(
                "slurmd", "-D", "-N", name, "-f", self.environment["SLURM_CONF"]
            )
        wait_for(
            lambda: self.ask("sinfo", "-h", "-o", "%t %D") == f"idle {nodes}", 60, "idle nodes"
        )

    def ask(self, *command: str) -> str:
        """Returns what one of Slurm's commands prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        return done.stdout.strip()

    def kill_node(self, name: str) -> None:
        """Kills a node's daemon; the job on it becomes an orphan, and Slurm is told of its death.

        By itself it would hear of it within SlurmdTimeout and a few pings: half a minute here.
        """
        self._nodes[name].kill()
        self._nodes.pop(name).wait()
        self.ask("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=dead")

    def close(self) -> None:
        """Ends the cluster with its jobs."""
        self.ask("scancel", "--signal=KILL", f"--user={getpass.getuser()}")
        self.ask("scancel", f"--user={getpass.getuser()}")
        for process in (*self._nodes.values(), self._controller, self._munge):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process in psutil.process_iter():  # orphans
            with suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configure(self, names: list[str]) -> None:
        self._names = names
        host = socket.gethostname().partition(".")[0]
        said = CONF.format(host=host, port=free_port(), user="root", folder=self.folder)
        gres = []
        for name in names:
            device = self.folder / f"gpu-{name}"
            os.mknod(device, 0o20666, os.makedev(1, 3))  # as /dev/null
            gres.append(f"NodeName={name} Name=gpu File={device} Flags=nvidia_gpu_env")
            said += (
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} "
                "CPUs=2 Gres=gpu:1 State=UNKNOWN\n"
            )
            (self.folder / f"spool-{name}").mkdir()
        everywhere = ",".join(names)
        said += f"PartitionName=low Nodes={everywhere} Default=YES PriorityTier=1 GraceTime=60\n"
        said += f"PartitionName=high Nodes={everywhere} PriorityTier=2 PreemptMode=OFF\n"
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(said)
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)

    def _munge_options(self) -> list[str]:
        at = self.folder
        return [
            "--foreground", "--force", f"--socket={at}/munge.socket", f"--key-file={at}/munge.key",
            f"--log-file={at}/munged.log", f"--pid-file={at}/munged.pid", f"--seed-file={at}/seed",
        ]  # fmt: skip

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.out").open("ab") as log:
            return subprocess.Popen([program, *arguments], stdout=log, stderr=log)
