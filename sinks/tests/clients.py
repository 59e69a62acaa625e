"""What other people's programs make of a run: see clients.sh, which calls this.

clients.py listen KEY FILE PEM  takes webhooks by HTTPS with that key and certificate, checks their signatures, and appends
                                them to FILE
clients.py check TB MLFLOW FILE compares everything with the exports in this folder
clients.py grpc URL             calls every method of a coordinator
"""

import csv
import json
import math
import struct
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

RUNS = ["job", "tuned.0", "tuned.1", "tuned.2"]
STEP_METRICS = {"loss", "lr", "grad_norm", "step_seconds", "outside_seconds", "samples_per_second"}
EVAL_METRICS = {"eval_loss", "eval_accuracy"}


def bits(value):
    """The 64 bits of a number; all that are not a number are alike."""
    return "NaN" if math.isnan(value) else struct.pack("<d", value + 0.0)


def exported(run):
    """Points of a run that count: value by metric and step, and all rows."""
    with open(f"{run}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    points = {}
    for row in rows:
        if row["rolled_back"] == "false":
            key = (row["metric"], int(row["step"]))
            assert key not in points, f"{run}: {key} stands twice"
            points[key] = float(row["value"])
    return points, rows


def compare(what, run, found, points, as_is=bits):
    expected = {key: as_is(value) for key, value in points.items()}
    found = {key: as_is(value) for key, value in found.items()}
    assert found.keys() == expected.keys(), f"{what}: {run}: {len(found)} points, not {len(expected)}"
    wrong = [key for key in expected if expected[key] != found[key]]
    assert not wrong, f"{what}: {run}: {len(wrong)} of {len(expected)} differ, such as {wrong[0]}"
    print(f"{what}: {run}: {len(found)} points are the same")


def listen(key, path, pem):
    import ssl
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from standardwebhooks import Webhook

    seen = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            nonlocal seen
            seen += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # Raises if the signature is not that of the body.
            message = Webhook(key).verify(body, dict(self.headers))
            # Every tenth is refused once, and must come again.
            status = 503 if seen % 10 == 0 else 204
            if status == 204:
                with open(path, "a") as file:
                    file.write(json.dumps(message) + "\n")
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"https://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def ask(url, body=None):
    """A server that is starting is waited for."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for _ in range(300):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError) as error:
            last = error
            time.sleep(0.2)
    raise AssertionError(f"{url}: {last}")


def bits32(value):
    """The 32 bits of the nearest number that has so many, which is what TensorBoard knows."""
    return "NaN" if math.isnan(value) else struct.pack("<f", value + 0.0)


INSIDE = ("weights/", "gradients/", "input/", "attention/")


def check_event_files(folder, run, points):
    from tensorboard.backend.event_processing import event_accumulator, event_file_loader
    from tensorboard.util import tensor_util

    files = list(Path(folder, run).iterdir())
    assert len(files) == 1, files
    found = {}
    for event in event_file_loader.EventFileLoader(str(files[0])).Load():
        if event.HasField("session_log"):
            found = {key: value for key, value in found.items() if key[1] < event.step}
        for value in event.summary.value:
            if not value.tag.startswith(("_hparams_/", *INSIDE)):
                assert (value.tag, event.step) not in found, f"{run}: {value.tag} {event.step} stands twice"
                found[value.tag, event.step] = tensor_util.make_ndarray(value.tensor).item()
    compare(f"EventFileLoader: {folder}", run, found, points, bits32)

    accumulated = event_accumulator.EventAccumulator(str(files[0]), size_guidance={"scalars": 0, "histograms": 0, "images": 0}).Reload()
    found = {}
    for tag in accumulated.Tags()["scalars"]:
        for event in accumulated.Scalars(tag):
            assert (tag, event.step) not in found, f"{run}: {tag} {event.step} is there twice"
            found[tag, event.step] = event.value
    compare(f"event_accumulator: {folder}", run, found, points, bits32)
    check_inside(folder, run, accumulated)


def check_inside(folder, run, accumulated):
    """What the accumulator has of the inside of the model: every look once, whole, and pictures that open."""
    import io

    from PIL import Image

    tags = accumulated.Tags()
    if run != "job":
        assert not tags["histograms"] and not tags["images"], tags
        return
    steps = list(range(60, 601, 60))
    weights = {tag for tag in tags["histograms"] if tag.startswith("weights/")}
    gradients = {tag for tag in tags["histograms"] if tag.startswith("gradients/")}
    assert len(weights) == len(gradients) > 20 and len(tags["histograms"]) == 2 * len(weights), tags["histograms"]
    for tag in tags["histograms"]:
        looks = accumulated.Histograms(tag)
        assert [look.step for look in looks] == steps, (tag, [look.step for look in looks])
        for value in (look.histogram_value for look in looks):
            assert len(value.bucket) == len(value.bucket_limit) == 65 and sum(value.bucket) == value.num > 0, value
            assert value.bucket_limit == sorted(value.bucket_limit) and value.bucket[0] == 0, value
            assert value.min == value.bucket_limit[0] and value.max == value.bucket_limit[-1], value
            assert value.min * value.num <= value.sum <= value.max * value.num, value
    layers = {tag.split("/")[-1] for tag in tags["images"] if tag.startswith("attention/")}
    expected = {f"input/sample {n}" for n in range(4)}
    expected |= {f"attention/sample {n}/{layer}" for n in range(4) for layer in layers}
    assert set(tags["images"]) == expected and len(layers) > 1, tags["images"]
    for tag in tags["images"]:
        looks = accumulated.Images(tag)
        assert [look.step for look in looks] == steps, (tag, [look.step for look in looks])
        for look in looks:
            picture = Image.open(io.BytesIO(look.encoded_image_string))
            picture.load()
            assert picture.format == "PNG" and picture.size == (look.width, look.height), (tag, picture)
            least, most = picture.convert("L").getextrema()
            assert most == 255 > least if tag.startswith("attention/") else picture.size == (8, 8), (tag, least, most)
    print(f"event_accumulator: {folder}/{run}: {len(tags['histograms'])} histograms, {len(tags['images'])} images")


def check_tensorboard(url, run, points):
    found = {}
    for tag in STEP_METRICS | EVAL_METRICS:
        expected = sum(key[0] == tag for key in points)
        series = []
        # It reads the folder after it has begun to answer.
        for _ in range(300):
            series = ask(f"{url}/data/plugin/scalars/scalars?run={run}&tag={tag}")
            if len(series) >= expected:
                break
            time.sleep(0.2)
        for _, step, value in series:
            assert (tag, step) not in found, f"{run}: {tag} {step} is shown twice"
            found[tag, step] = float(value)
    compare("tensorboard's page", run, found, points, bits32)


def check_hparams(url):
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = ask(f"{url}/data/plugin/hparams/session_groups", body)["sessionGroups"]
    assert {group["name"] for group in groups} == {"tuned.0", "tuned.1", "tuned.2"}, groups
    for group in groups:
        assert set(group["hparams"]) == {"schedule.lr", "optimizer.type", "train.steps", "sweep"}, group["hparams"]
        assert group["hparams"]["train.steps"] == 60 and group["hparams"]["sweep"] == "tuned", group["hparams"]
        points, _ = exported(group["name"])
        last = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
        expected = points["eval_accuracy", 60]
        assert abs(last["eval_accuracy"] - expected) < 1e-6, (last, expected)
    print(f"tensorboard's HPARAMS page: {len(groups)} trials with parameters, outcome and last figures")


def check_mlflow(url, run, points, rows):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(url)
    sweep = run.split(".")[0] if "." in run else None
    experiment = client.get_experiment_by_name(sweep or "phalanx")
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run}'")
    assert len(runs) == 1, runs
    stored = Counter((row["metric"], int(row["step"])) for row in rows)
    found, times = {}, Counter()
    for metric in STEP_METRICS | EVAL_METRICS:
        history = client.get_metric_history(runs[0].info.run_id, metric)
        # What was rolled back cannot be taken out: the newest value of a step counts.
        for point in sorted(history, key=lambda point: point.timestamp):
            assert point.timestamp > 1_600_000_000_000
            found[metric, point.step] = point.value
            times[metric, point.step] += 1
    doubled = [key for key in times if times[key] > stored[key]]
    assert not doubled, f"{run}: {doubled[0]} stands {times[doubled[0]]} times"
    compare("mlflow", run, found, points)
    status, params = runs[0].info.status, runs[0].data.params
    assert status == "FINISHED" and params["train.global_batch"] == "128", (status, params)
    assert sweep is None or float(params["schedule.lr"]) > 0, params


def check_tables(run, points, rows):
    import pandas

    table = pandas.read_parquet(f"{run}.parquet")
    types = {name: str(kind) for name, kind in table.dtypes.items()}
    assert types["step"] == "int64" and types["value"] == "float64" and types["rolled_back"] == "bool", types
    counted = table[~table.rolled_back]
    found = {(row.metric, row.step): row.value for row in counted.itertuples()}
    compare("pandas: Parquet", run, found, points)
    assert len(table) == len(rows)
    for text, row in zip(rows, table.itertuples(), strict=True):
        numbers = [("value", row.value), ("epoch", row.epoch), ("seconds", row.seconds)]
        assert all(bits(float(text[column])) == bits(value) for column, value in numbers), (text, row)
        assert text["rolled_back"] == str(row.rolled_back).lower() and int(text["generation"]) == row.generation
    with open(f"{run}.jsonl") as file:
        lines = [json.loads(line) for line in file]
    for line, row in zip(lines, table.itertuples(), strict=True):
        assert bits(float(line["value"])) == bits(row.value) and line["seconds"] == row.seconds, (line, row)
    assert (table.epoch.diff().dropna() >= 0).all() and counted.seconds.min() >= 0


def check_webhook(path):
    with open(path) as file:
        messages = [json.loads(line) for line in file]
    by_id = {}
    for message in messages:
        assert by_id.setdefault(message["id"], message) == message, message
    ends = sorted((m["kind"], m["run"] or "", m["sweep"] or "", m["state"]) for m in by_id.values() if m["state"])
    assert ends == [
        ("run_ended", "job", "", "completed"),
        ("run_ended", "tuned.0", "tuned", "completed"),
        ("run_ended", "tuned.1", "tuned", "completed"),
        ("run_ended", "tuned.2", "tuned", "completed"),
        ("sweep_ended", "", "tuned", "completed"),
    ], ends
    kinds = {message["kind"] for message in messages}
    assert {"submitted", "group_formed", "checkpoint_committed", "coordinator_restarted"} <= kinds, kinds
    print(f"standardwebhooks: {len(messages)} messages, all signed, {len(by_id)} different ones")


def check(tensorboard, mlflow, webhook):
    for run in RUNS:
        points, rows = exported(run)
        steps = 600 if run == "job" else 60
        evals = {step for metric, step in points if metric == "eval_loss"}
        expected = {(metric, step) for metric in STEP_METRICS for step in range(1, steps + 1)}
        expected |= {(metric, step) for metric in EVAL_METRICS for step in evals}
        assert set(points) == expected and steps in evals, f"{run}: points are missing"
        rolled_back = sum(row["rolled_back"] == "true" for row in rows)
        assert run != "job" or rolled_back > 0, "nothing was rolled back"
        print(f"{run}: {len(points)} points, and {rolled_back} that were rolled back")
        check_tables(run, points, rows)
        check_event_files("runs", run, points)
        check_event_files("exported", run, points)
        check_mlflow(mlflow, run, points, rows)
        check_tensorboard(tensorboard, run, points)
    check_hparams(tensorboard)
    check_webhook(webhook)


def call_everything(url):
    import grpc
    from google.protobuf import descriptor_pool, message_factory
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    channel = grpc.insecure_channel(url.removeprefix("http://"))
    grpc.channel_ready_future(channel).result(timeout=30)
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    services = sorted(database.get_services())
    assert {"phalanx.v1.Control", "phalanx.v1.Sweeps", "phalanx.v1.WorkerLink", "grpc.health.v1.Health"} <= set(services)
    codes = {}
    # Workers serve Peer to each other; it is only described here.
    for service in (service for service in services if service.startswith("phalanx.") and service != "phalanx.v1.Peer"):
        name = "tuned" if service == "phalanx.v1.Sweeps" else "job"
        for method in pool.FindServiceByName(service).methods:
            ask = message_factory.GetMessageClass(method.input_type)
            answer = message_factory.GetMessageClass(method.output_type)
            path = f"/{service}/{method.name}"
            request = ask(**({"name": name} if "name" in method.input_type.fields_by_name else {}))
            arguments = (path, ask.SerializeToString, answer.FromString)
            try:
                if method.client_streaming:
                    list(channel.stream_stream(*arguments)(iter([request]), timeout=10))
                elif method.server_streaming:
                    list(channel.unary_stream(*arguments)(request, timeout=10))
                else:
                    channel.unary_unary(*arguments)(request, timeout=10)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
            codes[path] = code.name
    fair = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    assert set(codes.values()) <= fair, codes
    for path in ("GetRun", "GetCluster", "ReadRecords", "ReadHistory", "ReadLedger", "ReadLog"):
        assert codes[f"/phalanx.v1.Control/{path}"] == "OK", codes
    for path in ("GetSweep", "ListSweeps", "WatchSweep", "GetSweepResults", "ReadSweepEvals", "ReadSweepFacts"):
        assert codes[f"/phalanx.v1.Sweeps/{path}"] == "OK", codes
    # Left open, its threads sometimes keep the interpreter from ending.
    channel.close()
    print(f"grpcio: {len(codes)} methods of {len(services)} services, {list(codes.values()).count('OK')} answer with OK")


if __name__ == "__main__":
    {"listen": listen, "check": check, "grpc": call_everything}[sys.argv[1]](*sys.argv[2:])
