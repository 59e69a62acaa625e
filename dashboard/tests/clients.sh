#!/usr/bin/env bash
# Asks a coordinator with other people's clients: `clients.sh PHALANX`, a program that is built.
#
# Needs promtool (Debian's prometheus), schemathesis (PyPI) and curl. Runs in the root of the repository.
set -euo pipefail
phalanx=$(realpath "${1:?the program, for example target/debug/phalanx}")
cd "$(dirname "$0")/../.."
for tool in promtool schemathesis curl; do
    command -v "$tool" > /dev/null || { echo "$tool is missing" >&2; exit 1; }
done
place=$(mktemp -d)
trap 'kill "${coordinator:-}" 2> /dev/null || true; wait; rm -rf "$place"' EXIT

echo "-- a run and a sweep to ask about"
sed "s/^  epochs:.*/  steps: 60/; s|\.\./datasets|$PWD/datasets|" configs/digits-vit.yaml > "$place/job.yaml"
"$phalanx" launch "$place/job.yaml" --name job --workers 1 --state-dir "$place" > "$place/launch.txt" 2>&1 \
    || { cat "$place/launch.txt" >&2; exit 1; }
grep -q '^dashboard at http://127.0.0.1:' "$place/launch.txt"

"$phalanx" coordinator --listen 127.0.0.1:0 --http 127.0.0.1:0 --state-dir "$place" > "$place/coordinator.txt" &
coordinator=$!
for _ in $(seq 100); do
    grep -q '^dashboard at' "$place/coordinator.txt" && break
    sleep 0.1
done
url=$(sed -n 's/^dashboard at //p' "$place/coordinator.txt")
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/")" = 200 ]

echo "-- promtool: metrics"
curl -sf "$url/metrics" | promtool check metrics

echo "-- promtool: the queries of the Grafana dashboard"
python3 - deploy/grafana/phalanx.json > "$place/rules.yaml" << 'END'
import json, re, sys
board = json.load(open(sys.argv[1]))
queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
rules = [{"record": f"query:{i}", "expr": re.sub(r"\$__rate_interval", "1m", q)} for i, q in enumerate(queries)]
print(json.dumps({"groups": [{"name": "grafana", "rules": rules}]}))
END
promtool check rules "$place/rules.yaml"

echo "-- schemathesis: the API does what its description says"
# It leaves a folder where it runs.
(cd "$place" && schemathesis run "$url/api/openapi.json" --header 'X-Phalanx: 1' --exclude-path /api/v1/stream \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --max-examples 15 --seed 1 --no-color)

echo "-- curl: events come as they happen"
curl -sN --max-time 2 "$url/api/v1/stream?topics=cluster" > "$place/events.txt" || true
grep -q '^event: cluster$' "$place/events.txt"
echo "other people's clients understand the dashboard"
