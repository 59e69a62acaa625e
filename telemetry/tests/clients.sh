#!/usr/bin/env bash
# What processes tell, heard by another one's services: `clients.sh PHALANX`, a program that is built.
#
# Needs, from PyPI: grpcio and opentelemetry-proto. A collector in Python hears of a launch of two workers whose steps 3 to 7
# are profiled, and of the same launch when it is not there: the weights must be the same.
set -euo pipefail
phalanx=$(realpath "${1:?the program, for example target/debug/phalanx}")
cd "$(dirname "$0")/../.."
place=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$place"' EXIT
unset PHALANX_COORDINATOR PHALANX_STATE_DIR OTEL_EXPORTER_OTLP_ENDPOINT RUST_LOG
sed "s/^  epochs:.*/  steps: 40/; s|\.\./datasets|$PWD/datasets|" configs/digits-vit.yaml > "$place/job.yaml"

echo "-- a collector, and a launch that tells it"
python3 telemetry/tests/clients.py listen "$place/told" > "$place/listen.txt" 2>&1 &
listening=$!
for _ in $(seq 600); do
    if grep -q http "$place/listen.txt"; then break; fi
    sleep 0.1
done
collector=$(grep -om1 'http://127.0.0.1:[0-9]*' "$place/listen.txt") || { cat "$place/listen.txt" >&2; exit 1; }

# Prints the hash of the weights.
launch() {
    "$phalanx" launch "$place/job.yaml" --workers 2 --profile --json --state-dir "$place/$1" "${@:2}" \
        > "$place/$1.jsonl" 2> "$place/$1.err" || { cat "$place/$1.err" >&2; exit 1; }
    python3 -c 'import json, sys
ended = [event for event in map(json.loads, sys.stdin) if event["event"] == "ended"]
print(ended[0]["weights_sha256"])' < "$place/$1.jsonl"
}
heard=$(launch heard --otlp "$collector")
kill -TERM "$listening"
wait "$listening" || true
python3 telemetry/tests/clients.py check "$place/told"

echo "-- by the variable, and nobody is there any more"
unheard=$(OTEL_EXPORTER_OTLP_ENDPOINT=$collector launch unheard)
grep -q "did not get to the collector at $collector" "$place/unheard.err" || { cat "$place/unheard.err" >&2; exit 1; }
[ "$heard" = "$unheard" ] || { echo "$heard with a collector, $unheard without" >&2; exit 1; }
echo "a collector hears of every profiled step and of all processes, and changes nothing"
