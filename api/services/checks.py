"""What the handlers check of every request that names a run."""

from __future__ import annotations

from mulligan.api.validate import Faults
from mulligan.v1 import provisioning_pb2 as pb


def check_run(
    request: pb.WatchRunRequest
    | pb.GetRunRequest
    | pb.CancelRunRequest
    | pb.RetryRunRequest
    | pb.LeverRequest
    | pb.ExportRunRequest,
    faults: Faults | None = None,
    prefix: str = "",
) -> None:
    """Refuse a request whose run cannot be one; `faults` may hold what else is wrong with it."""
    faults = faults or Faults(request)
    if not request.workflow_id or len(request.workflow_id) > 255 or not request.workflow_id.isprintable():
        faults.add(
            f"{prefix}workflow_id", "must be a run's id, such as provision:default:web-1; see `mulligan run list`"
        )
    run_id = "" if isinstance(request, pb.RetryRunRequest) else request.run_id
    if len(run_id) > 64 or not run_id.isprintable():
        faults.add(f"{prefix}run_id", "must be Temporal's id of one execution, or empty for the newest")
    faults.refuse()
