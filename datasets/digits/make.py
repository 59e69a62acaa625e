#!/usr/bin/env python3
"""Turn scikit-learn's digits.csv.gz into a pair of IDX files.

    pip download --no-deps scikit-learn==1.9.1
    unzip scikit_learn-*.whl sklearn/datasets/data/digits.csv.gz
    python3 make.py sklearn/datasets/data/digits.csv.gz

Each line holds 64 pixels (0 to 16, row by row) and the digit. The output depends on the input alone: no time and no file
name goes into the gzip header.
"""

import csv
import gzip
import hashlib
import io
import pathlib
import struct
import sys

SOURCE_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
SIDE = 8
PIXEL_MAX = 16
UNSIGNED_BYTE = 0x08


def idx(dimensions: list[int], elements: bytes) -> bytes:
    header = struct.pack(">BBBB", 0, 0, UNSIGNED_BYTE, len(dimensions))
    return header + struct.pack(f">{len(dimensions)}I", *dimensions) + elements


def write(path: pathlib.Path, content: bytes) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(content)
    path.write_bytes(packed.getvalue())
    print(hashlib.sha256(packed.getvalue()).hexdigest(), path.name)


def main(source: str) -> None:
    raw = pathlib.Path(source).read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"{source}: SHA-256 is {found}, must be {SOURCE_SHA256}")

    images, labels = bytearray(), bytearray()
    for row in csv.reader(io.StringIO(gzip.decompress(raw).decode("ascii"))):
        *pixels, label = [int(float(value)) for value in row]
        assert len(pixels) == SIDE * SIDE and max(pixels) <= PIXEL_MAX and label <= 9
        images += bytes(pixels)
        labels.append(label)

    here = pathlib.Path(__file__).parent
    write(here / "images-idx3-ubyte.gz", idx([len(labels), SIDE, SIDE], bytes(images)))
    write(here / "labels-idx1-ubyte.gz", idx([len(labels)], bytes(labels)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
