#!/usr/bin/env python3
"""How much the orchestration costs, with two workers of this machine.

    cargo build --release && python3 bench/spine.py [--runs 5]

launch_to_first_step         seconds from starting `phalanx launch` to its report of the first completed step
outside_model_share_digits   share of the steps' wall time that workers spend waiting for data and each other, reducing,
outside_model_share_fashion  agreeing and reporting; on steps of some 10 ms (digits) and 35 ms (400 steps of Fashion-MNIST,
                             Debian package dataset-fashion-mnist)
recovery_after_kill          seconds from SIGKILL of one of two workers to the report of the next completed step
steps_lost_after_kill        optimizer steps that had been completed and were made again after it
coordinator_memory           peak resident memory of a coordinator process with two workers, in MiB

The digits example is what runs where nothing else is said. Every process shares the machine's cores with the workers.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import result

ROOT = result.ROOT
BINARY = pathlib.Path(os.environ.get("PHALANX", ROOT / "target" / "release" / "phalanx"))
JOB = ROOT / "configs" / "digits-vit.yaml"
FASHION = ROOT / "configs" / "fashion-mnist-vit.yaml"
FASHION_STEPS = 400
WARM_UP_STEPS = 20
RUN = "digits-vit"


class Phalanx:
    """A `phalanx` process whose JSON lines are read as they come, with the time of each."""

    def __init__(self, state: str, *arguments: str):
        environment = {**os.environ, "PHALANX_STATE_DIR": state, "RUST_LOG": "error"}
        environment.pop("PHALANX_COORDINATOR", None)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [BINARY, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def events(self):
        for line in self.process.stdout:
            yield time.monotonic(), json.loads(line)

    def until(self, fits):
        for at, event in self.events():
            if fits(event):
                return at, event
        sys.exit(f"phalanx ended early with exit code {self.process.wait()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_step(event: dict) -> bool:
    return event["event"] == "step"


def launch(state: str, job: pathlib.Path = JOB) -> Phalanx:
    return Phalanx(state, "launch", str(job), "--workers", "2", "--json")


def short_fashion(folder: str) -> pathlib.Path:
    """The Fashion-MNIST example, cut off after some steps."""
    yaml, changes = re.subn(r"epochs: \d+", f"steps: {FASHION_STEPS}", FASHION.read_text(), count=1)
    assert changes == 1
    path = pathlib.Path(folder) / "fashion.yaml"
    path.write_text(yaml)
    return path


def worker_pids(state: str) -> list[int]:
    environment = {**os.environ, "PHALANX_STATE_DIR": state}
    status = json.loads(subprocess.run([BINARY, "status", "--json"], env=environment, capture_output=True, check=True).stdout)
    return [worker["pid"] for worker in status["workers"] if worker["run"] == RUN]


def launch_to_first_step() -> float:
    with tempfile.TemporaryDirectory() as state, launch(state) as run:
        at, _ = run.until(is_step)
        return at - run.started


def outside_model_share(job: pathlib.Path) -> float:
    """Over every step but the first ones, as the store keeps them; what the terminal shows is only a choice of steps."""
    with tempfile.TemporaryDirectory() as state:
        with launch(state, job) as run:
            run.until(lambda event: event["event"] == "ended")
            run.process.wait()
        sums = "SELECT sum(micros_outside_model), sum(micros) FROM records WHERE micros IS NOT NULL AND step > ?"
        with contextlib.closing(sqlite3.connect(pathlib.Path(state) / "phalanx.db")) as store:
            outside, total = store.execute(sums, (WARM_UP_STEPS,)).fetchone()
    return outside / total


def recovery_after_kill() -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as state, launch(state) as run:
        run.until(lambda e: is_step(e) and e["step"] >= 100)
        victim = worker_pids(state)[0]
        _, last = run.until(is_step)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        for at, event in run.events():
            if not is_step(event):
                continue
            if event["generation"] > last["generation"]:
                return at - killed, max(0, last["step"] + 1 - event["step"])
            last = event
    sys.exit("the run did not go on after its worker was killed")


def coordinator_memory() -> float:
    with tempfile.TemporaryDirectory() as state, Phalanx(state, "coordinator", "--listen", "127.0.0.1:0", "--http", "off") as coordinator:
        url = next(word for word in coordinator.process.stdout.readline().split() if word.startswith("http://"))
        with (
            Phalanx(state, "worker", "--coordinator", url, "--threads", "1"),
            Phalanx(state, "worker", "--coordinator", url, "--threads", "1"),
            Phalanx(state, "launch", str(JOB), "--coordinator", url, "--json") as run,
        ):
            run.until(lambda e: e["event"] == "ended")
            status = pathlib.Path(f"/proc/{coordinator.process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = range(parser.parse_args().runs)
    first_steps = [launch_to_first_step() for _ in runs]
    met = [result.write("launch_to_first_step", first_steps, "s", "lower", 1.0)]
    shares = [outside_model_share(JOB) for _ in runs]
    met.append(result.write("outside_model_share_digits", shares, "share of the step", "lower", 0.03))
    with tempfile.TemporaryDirectory() as folder:
        job = short_fashion(folder)
        shares = [outside_model_share(job) for _ in runs]
    met.append(result.write("outside_model_share_fashion", shares, "share of the step", "lower", 0.03))
    recoveries = [recovery_after_kill() for _ in runs]
    met.append(result.write("recovery_after_kill", [seconds for seconds, _ in recoveries], "s", "lower", 1.0))
    met.append(result.write("steps_lost_after_kill", [lost for _, lost in recoveries], "steps", "lower", 1))
    met.append(result.write("coordinator_memory", [coordinator_memory() for _ in runs], "MiB", "lower", 64))
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
