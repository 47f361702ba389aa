"""Fifty broken pictures of ten kinds among good ones: each is set aside by name, no good one is lost."""

import io
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from partcraft_kedro.images.readers import read_folder
from partcraft_kedro.images.records import examine_pictures, hash_pictures

COPIES = 5


def encoded(kind: str, copy: int) -> bytes:
    noise = np.random.default_rng(copy).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def huge_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + rows + png_chunk(b"IEND", b"")


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


KINDS = {
    "empty.jpg": lambda copy: b"",
    "zeros.png": lambda copy: bytes(1000 * (copy + 1)),
    "page.jpg": lambda copy: b"<!DOCTYPE html><title>404 Not Found</title>" * (copy + 1),
    "vector.png": lambda copy: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "noise.webp": lambda copy: np.random.default_rng(copy).bytes(500),
    "header_only.jpg": lambda copy: encoded("JPEG", copy)[: 4 + 30 * copy],
    "cut_short.jpg": lambda copy: encoded("JPEG", copy)[: 1000 + 100 * copy],
    "cut_short.png": lambda copy: encoded("PNG", copy)[: 500 + 500 * copy],
    "flipped_bits.png": lambda copy: flipped(encoded("PNG", copy), 60 + 40 * copy),
    "bomb.png": lambda copy: huge_png(50_000 + 10_000 * copy),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(10):
        (folder / f"good_{i}.png").write_bytes(encoded("PNG", i))
    for name, make in KINDS.items():
        for copy in range(COPIES):
            (folder / f"{copy}_{name}").write_bytes(make(copy))
    return folder


def test_each_broken_picture_is_named_and_every_good_one_kept(folder) -> None:
    records = read_folder(folder, test_fraction=0.5, seed=0)
    assert len(records) == 10 + COPIES * len(KINDS) == 60
    records["sha256"] = hash_pictures(records, folder)
    kept, quarantine = examine_pictures(records, folder, worst=1.0)
    assert sorted(kept["id"]) == [f"good_{i}.png" for i in range(10)]
    named = pd.Series(quarantine["reason"].to_numpy(), quarantine["id"])
    assert {name: int(named.index.str.endswith(f"_{name}").sum()) for name in KINDS} == dict.fromkeys(KINDS, COPIES)
    for name, reason in named.items():
        assert str(folder / name) in reason
        assert "\n" not in reason
