"""Whether the processes of a deployment answer: asked from outside, as a user would see it."""

from __future__ import annotations

import time

import grpc
from grpc_health.v1 import health_pb2
from temporalio.api.enums.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from temporalio.api.taskqueue.v1.message_pb2 import TaskQueue
from temporalio.api.workflowservice.v1.request_response_pb2 import DescribeTaskQueueRequest
from temporalio.api.workflowservice.v1.service_pb2_grpc import WorkflowServiceStub

from mulligan.activities.neighbours import RECENT_SECONDS
from mulligan.api.config import Settings

_CALL_SECONDS = 2.0


def api_answers(address: str) -> bool:
    """Whether the API server at this address says that it is serving; waits at most two seconds."""
    with grpc.insecure_channel(address) as channel:
        try:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer = check(health_pb2.HealthCheckRequest(service=""), timeout=_CALL_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def pollers(settings: Settings, queue: str) -> tuple[str, ...]:
    """Who polled the task queue for activities of late, as `pid@host`; empty when Temporal does not answer either."""
    request = DescribeTaskQueueRequest(
        namespace=settings.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TASK_QUEUE_TYPE_ACTIVITY,
    )
    with grpc.insecure_channel(settings.temporal) as channel:
        try:
            answer = WorkflowServiceStub(channel).DescribeTaskQueue(request, timeout=_CALL_SECONDS)
        except grpc.RpcError:
            return ()
    since = time.time() - RECENT_SECONDS
    return tuple(each.identity for each in answer.pollers if each.last_access_time.ToMicroseconds() / 1e6 > since)


def worker_polls(settings: Settings, pid: int, queues: tuple[str, ...]) -> bool:
    """Whether the worker process `pid` polls every one of the queues."""
    return all(any(who.startswith(f"{pid}@") for who in pollers(settings, queue)) for queue in queues)
