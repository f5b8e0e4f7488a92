"""Where samples run: this process, local processes, a Dask cluster."""

from __future__ import annotations

from mipverify.cluster.executor import Answer, ClusterError, Executor, Job
from mipverify.cluster.job import SampleJob
from mipverify.cluster.schedule import Schedule

__all__ = ["Answer", "ClusterError", "Executor", "Job", "SampleJob", "Schedule", "open_executor"]


def open_executor(job: Job, *, workers: int, cluster: str | None = None) -> Executor:
    """The executor that was asked for.

    workers  number of local processes; 0 is a thread of this process
    cluster  None, `local` for a Dask cluster on this machine, or the address of a Dask scheduler
    """
    if cluster is not None:
        from mipverify.cluster.dask import DaskExecutor

        return DaskExecutor(job, cluster, workers=workers)
    if workers == 0:
        from mipverify.cluster.here import HereExecutor

        return HereExecutor(job)
    from mipverify.cluster.local import LocalExecutor

    return LocalExecutor(job, workers)
