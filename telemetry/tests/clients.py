"""A collector of OTLP over gRPC, and a look at what it was told. See clients.sh."""

import pathlib
import signal
import sys
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

RANKS = ["rank 0", "rank 1"]
STEPS = [f"step {step}" for step in range(3, 8)]
PHASES = {"data", "forward", "backward", "reduce", "agree", "update", "report"}


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.told = trace_service_pb2.ExportTraceServiceRequest()

    def Export(self, request, context):
        self.told.MergeFrom(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self):
        self.told = logs_service_pb2.ExportLogsServiceRequest()

    def Export(self, request, context):
        self.told.MergeFrom(request)
        return logs_service_pb2.ExportLogsServiceResponse()


def listen(folder):
    """Serves until SIGTERM, and leaves what it was told in `folder`. One thread: nothing is told at the same time."""
    traces, logs = Traces(), Logs()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(traces, server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(logs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"http://127.0.0.1:{port}", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop(grace=5).wait()
    folder.mkdir()
    (folder / "traces").write_bytes(traces.told.SerializeToString())
    (folder / "logs").write_bytes(logs.told.SerializeToString())


def values(attributes):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def check(folder):
    traces = trace_service_pb2.ExportTraceServiceRequest.FromString((folder / "traces").read_bytes())
    logs = logs_service_pb2.ExportLogsServiceRequest.FromString((folder / "logs").read_bytes())

    by_trace = {}
    for of_resource in traces.resource_spans:
        resource = values(of_resource.resource.attributes)
        check_resource(resource)
        for span in (span for scope in of_resource.scope_spans for span in scope.spans):
            assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
            assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
            by_trace.setdefault(span.trace_id, []).append((resource["service.instance.id"], span))
    steps = {}
    for trace in by_trace.values():
        roots = [span.name for _, span in trace if not span.parent_span_id]
        for root in (root for root in roots if root.startswith("step ")):
            assert root not in steps, f"{root} has two traces"
            steps[root] = trace
    assert sorted(steps) == STEPS, sorted(steps)
    for name, trace in steps.items():
        check_step(name, trace)

    instances = {}
    for of_resource in logs.resource_logs:
        resource = values(of_resource.resource.attributes)
        check_resource(resource)
        records = [record for scope in of_resource.scope_logs for record in scope.log_records]
        assert all(record.severity_text and record.observed_time_unix_nano for record in records)
        instances.setdefault(resource["service.instance.id"], []).extend(records)
        scopes = [scope.scope.name for scope in of_resource.scope_logs]
        assert not any(scope.startswith(("h2", "tonic", "opentelemetry")) for scope in scopes), scopes
    workers = {instance for trace in by_trace.values() for instance, _ in trace} - {"coordinator"}
    assert len(workers) == 2 and set(instances) == workers | {"coordinator"}, (workers, set(instances))
    for worker in workers:
        formed = [record for record in instances[worker] if record.body.string_value == "group formed"]
        assert len(formed) == 1 and values(formed[0].attributes)["world"] == 2, formed
    print(f"{len(by_trace)} traces, {len(steps)} of them of steps, and {sum(map(len, instances.values()))} log records")


def check_resource(resource):
    assert resource["service.name"] == "phalanx" and resource["service.version"], resource


def check_step(name, trace):
    """One tree: the step, its two ranks from two processes, and what they are made of, in order and one in the other."""
    by_id = {span.span_id: span for _, span in trace}
    assert len(by_id) == len(trace), f"{name}: an identity was given twice"
    [root] = [span for span in by_id.values() if not span.parent_span_id]
    ranks = [(instance, span) for instance, span in trace if span.parent_span_id == root.span_id]
    assert sorted(span.name for _, span in ranks) == RANKS, name
    assert len({instance for instance, _ in ranks}) == 2, name
    assert sum(values(span.attributes)["phalanx.samples"] for _, span in ranks) == 128, name
    for instance, rank in ranks:
        known = values(rank.attributes)
        assert known["phalanx.run"] == "digits-vit" and known["phalanx.world_size"] == 2, known
        assert f"step {known['phalanx.step']}" == name and known["phalanx.worker"] == instance, known
        assert known["phalanx.matmul_flops"] > 0 and known["phalanx.generation"] == 1, known
        parts = [span for span in by_id.values() if span.parent_span_id == rank.span_id]
        phases = sorted((span for span in parts if span.name in PHASES), key=lambda span: span.start_time_unix_nano)
        assert {span.name for span in phases} == PHASES, name
        assert all(a.end_time_unix_nano <= b.start_time_unix_nano for a, b in zip(phases, phases[1:])), name
        assert any(span.name.startswith("bucket") for span in parts), name
    for span in by_id.values():
        if span.span_id == root.span_id or span.parent_span_id == root.span_id:
            continue
        parent = by_id[span.parent_span_id]
        assert parent.start_time_unix_nano <= span.start_time_unix_nano, (parent, span)
        assert span.end_time_unix_nano <= parent.end_time_unix_nano, (parent, span)


if __name__ == "__main__":
    # Before there are threads: the signal is waited for by the main one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    {"listen": listen, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
