#!/usr/bin/env python3
"""The Fashion-MNIST example from start to end: test accuracy, and the minutes it takes on this machine.

    apt-get install dataset-fashion-mnist
    cargo build --release && python3 bench/fashion.py
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import result

BINARY = pathlib.Path(os.environ.get("PHALANX", result.ROOT / "target" / "release" / "phalanx"))
JOB = result.ROOT / "configs" / "fashion-mnist-vit.yaml"


def main() -> None:
    with tempfile.TemporaryDirectory() as state:
        command = [BINARY, "launch", str(JOB), "--state-dir", state, "--json"]
        lines = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout
    ended = json.loads(lines.splitlines()[-1])
    met = [
        result.write("fashion_mnist_accuracy", [ended["accuracy"]], "share of the test images", "higher", 0.88),
        result.write("fashion_mnist_minutes", [ended["seconds"] / 60], "min", "lower", 15),
    ]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
