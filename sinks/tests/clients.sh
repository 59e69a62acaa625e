#!/usr/bin/env bash
# What a run made, read with other people's programs: `clients.sh PHALANX`, a program that is built.
#
# Needs, all from PyPI: tensorboard, mlflow (with its server), pandas with pyarrow, standardwebhooks, and grpcio with
# grpcio-reflection. A run is killed in the middle and resumed; all of them must have every figure of it once, with its bits.
set -euo pipefail
phalanx=$(realpath "${1:?the program, for example target/debug/phalanx}")
cd "$(dirname "$0")/../.."
for tool in tensorboard mlflow; do
    command -v "$tool" > /dev/null || { echo "$tool is missing" >&2; exit 1; }
done
here=$PWD/sinks/tests
place=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$place"' EXIT
cd "$place"
unset PHALANX_COORDINATOR PHALANX_STATE_DIR
key=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=

# Waits until a server has said where it is, and prints that.
address() {
    for _ in $(seq 600); do
        if grep -om1 'https*://127.0.0.1:[0-9]*' "$1"; then return; fi
        sleep 0.1
    done
    cat "$1" >&2
    exit 1
}

echo "-- mlflow's server and a listener for webhooks"
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mlflow server --host 127.0.0.1 --port "$port" --workers 1 --backend-store-uri "sqlite:///$place/mlflow.db" \
    --default-artifact-root "$place/artifacts" > mlflow.txt 2>&1 &
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
    -addext basicConstraints=critical,CA:FALSE -keyout listen.pem -out certificate.pem 2> openssl.txt
cat certificate.pem >> listen.pem
python3 "$here/clients.py" listen "$key" webhook.jsonl listen.pem > listen.txt 2>&1 &
hook=$(address listen.txt)
mlflow=http://127.0.0.1:$port
sinks=(--sink "tensorboard=$place/runs" --sink "mlflow=$mlflow" --sink "webhook=$hook/hook")
export PHALANX_WEBHOOK_SECRET=whsec_$key
# Who trusts this certificate; the system does not.
trusting=(env "SSL_CERT_FILE=$place/certificate.pem" "$phalanx")

echo "-- a run that is killed with its coordinator, and resumed; mlflow may still be starting"
data=$OLDPWD/datasets
sed "s/^  epochs:.*/  steps: 600/; s|\.\./datasets|$data|" "$OLDPWD/configs/digits-vit.yaml" > job.yaml
{ cat job.yaml; echo "inspect: {every_steps: 60}"; } > inspected.yaml
"${trusting[@]}" launch inspected.yaml --name job --workers 1 --state-dir state --json "${sinks[@]}" > launch.txt 2>&1 &
launched=$!
for _ in $(seq 600); do
    if grep -q '"event":"checkpoint"' launch.txt; then break; fi
    sleep 0.1
done
sleep 0.5
kill -9 "$launched"
wait "$launched" 2> /dev/null || true
for _ in $(seq 600); do
    if curl -sf "$mlflow/health" > /dev/null; then break; fi
    sleep 0.1
done
"${trusting[@]}" resume job --workers 1 --state-dir state "${sinks[@]}"

echo "-- a sweep, whose sinks it never had before"
cat > sweep.yaml << END
version: 1
name: tuned
job: job.yaml
trials: 3
searcher: {type: random}
space:
  schedule.lr: {log_uniform: [1e-4, 1e-2]}
  optimizer.type: {categorical: [adamw]}
  train.steps: 60
END
"${trusting[@]}" sweep sweep.yaml --workers 1 --state-dir state "${sinks[@]}" > sweep.txt 2>&1 || { cat sweep.txt >&2; exit 1; }

echo "-- a server whose certificate nobody vouches for is told nothing"
sed "s/steps: 600/steps: 60/" job.yaml > short.yaml
before=$(wc -l < webhook.jsonl)
"$phalanx" launch short.yaml --name untold --workers 1 --state-dir other --sink "webhook=$hook/hook" > untold.txt 2>&1 || { cat untold.txt >&2; exit 1; }
grep -q 'webhook at https://.*it cannot be reached.*certificate' untold.txt || { cat untold.txt >&2; exit 1; }
[ "$(wc -l < webhook.jsonl)" = "$before" ]

echo "-- exports"
for run in job tuned.0 tuned.1 tuned.2; do
    "$phalanx" export "$run" --csv --state-dir state > "$run.csv"
    "$phalanx" export "$run" --json --state-dir state > "$run.jsonl"
    "$phalanx" export "$run" --parquet "$run.parquet" --state-dir state
    "$phalanx" export "$run" --tensorboard exported --state-dir state
done

echo "-- tensorboard's readers and server, mlflow's client, pandas, standardwebhooks"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# A series of up to 600 points is shown whole.
tensorboard --samples_per_plugin scalars=1000 --logdir runs --host 127.0.0.1 --port "$port" > tensorboard.txt 2>&1 &
python3 "$here/clients.py" check "http://127.0.0.1:$port" "$mlflow" webhook.jsonl

echo "-- grpcio: every method that reflection lists"
"$phalanx" coordinator --listen 127.0.0.1:0 --http off --state-dir state > coordinator.txt 2>&1 &
timeout 300 python3 "$here/clients.py" grpc "$(address coordinator.txt)"
echo "other people's programs have the same figures"
