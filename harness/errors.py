"""The one error tree.

::

    ZkChaosError                    exit code 3: the harness could not do what it said
    ├── UsageError                  exit code 64: the request itself is wrong; nothing was started
    │   ├── TopologyError           a topology file
    │   ├── PlanError               a fault plan file
    │   ├── RunFolderError          a run folder that cannot be read or written as asked
    │   └── HistoryError            a history or transaction log that is not what it claims to be
    ├── EnvironmentLacking          this machine lacks something; says what to install or to enable
    │   ├── KernelLacking           the kernel has not what a fault is made of
    │   ├── NamespacesForbidden     user or network namespaces are not allowed here
    │   ├── EngineUnavailable       no Docker engine answers, or an image that is needed is not there
    │   ├── JavaMissing             no Java runtime was found
    │   ├── FaketimeMissing         no libfaketime, by which servers' clocks are set
    │   ├── FuseMissing             no FUSE, which servers' disks are made of
    │   └── DistributionUnavailable the server's jars could not be had
    ├── DistributionCorrupt         a jar whose SHA-256 is not the locked one
    ├── StorageFull                 the disk that holds the run folder is full
    ├── TestbedError                the agent or the kernel refused an operation
    ├── EnsembleError               a server did not start, or no quorum formed in time
    ├── FaultError                  a fault could not be injected, or could not be healed
    ├── LoadError                   a client process failed (not: an operation of it)
    ├── GuaranteeViolated           exit code 1: raised by `load.verify()` in a test; the harness itself is fine
    └── GuaranteeNotProven          exit code 2: raised by `load.verify()` where there is no verdict

Every error answers four questions: what happened, where, what the likely cause is, and what to do next.
"""

from __future__ import annotations


class ZkChaosError(Exception):
    """Base of every error that the harness raises on purpose.

    Args:
        what: what happened, one sentence without a full stop.
        where: the file, key, host or NIC it happened at; empty where there is none.
        cause: the likely cause; empty where `what` says it already.
        next_step: what the reader can do about it.
    """

    #: The exit code of the command line when this error ends it.
    exit_code = 3

    def __init__(self, what: str, *, where: str = "", cause: str = "", next_step: str = "") -> None:
        self.what = what
        self.where = where
        self.cause = cause
        self.next_step = next_step
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.cause:
            text += f" (likely cause: {self.cause})"
        if self.next_step:
            text += f"; {self.next_step}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all four answers when the error crosses a process border (xdist, the agent)."""
        return (_rebuild, (type(self), self.what, self.where, self.cause, self.next_step))


def _rebuild(kind: type[ZkChaosError], what: str, where: str, cause: str, next_step: str) -> ZkChaosError:
    return kind(what, where=where, cause=cause, next_step=next_step)


class UsageError(ZkChaosError):
    """The request is wrong. Raised before anything is started; nothing was changed."""

    exit_code = 64


class TopologyError(UsageError):
    """A topology file says something that cannot be built. `where` names the file and the key."""


class PlanError(UsageError):
    """A fault plan says something that cannot be carried out. `where` names the file and the key."""


class RunFolderError(UsageError):
    """A run folder is missing, taken, or not a run folder. Not: a folder on a full disk (`StorageFull`)."""


class HistoryError(UsageError):
    """A history or a transaction log is damaged where damage is not expected. `where` names file and offset."""


class EnvironmentLacking(ZkChaosError):
    """This machine lacks something that the request needs."""


class KernelLacking(EnvironmentLacking):
    """The kernel has not what a fault is made of, as sch_netem. Told before anything is broken."""


class NamespacesForbidden(EnvironmentLacking):
    """The kernel or its administrator forbids the namespaces that the embedded testbed is made of."""


class EngineUnavailable(EnvironmentLacking):
    """No Docker engine answers, or it lacks an image. Not: a request that it refused (`TestbedError`)."""


class JavaMissing(EnvironmentLacking):
    """No Java runtime: neither JAVA_HOME, nor PATH, nor the `java` extra."""


class ToxiproxyMissing(EnvironmentLacking):
    """There is no toxiproxy here, and it could not be compiled."""


class FaketimeMissing(EnvironmentLacking):
    """There is no libfaketime here that works, by which servers' clocks are set."""


class FuseMissing(EnvironmentLacking):
    """No file systems in user space here (FUSE), which servers' disks are made of."""


class DistributionUnavailable(EnvironmentLacking):
    """The server's jars are neither cached nor could be fetched. Not: a jar that is wrong (`DistributionCorrupt`)."""


class DistributionCorrupt(ZkChaosError):
    """A jar's SHA-256 differs from the lock file's. It is never used, and never silently replaced."""


class StorageFull(ZkChaosError):
    """No space left where the evidence is written. What was written before is kept."""


class TestbedError(ZkChaosError):
    """The agent or the kernel refused an operation on a host, NIC, switch or process."""

    __test__ = False  # the name begins with "Test"; it is no test case


class EnsembleError(ZkChaosError):
    """A server did not start, or no quorum formed within the deadline. `where` names the server's log."""


class FaultError(ZkChaosError):
    """A fault could not be injected or could not be healed."""


class LoadError(ZkChaosError):
    """A client process failed. Not: one of its operations, which is recorded in the history."""


class GuaranteeViolated(ZkChaosError, AssertionError):
    """A promise of ZooKeeper was broken, with proof. Raised by `load.verify()`; the harness itself is fine."""

    exit_code = 1


class GuaranteeNotProven(ZkChaosError, AssertionError):
    """A run ended without a verdict on some promise. Not: a broken promise; and never: a kept one."""

    exit_code = 2
