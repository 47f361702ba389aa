"""How quick the page of `kedro compose` is, in a real browser, and what its memory does over a hundred pictures.

    python benchmarks/page.py [--env=…] [--pictures 100]

On the project in the working directory, in which `kedro run` has ended; where only `--pipelines=parts` has, the page's
readiness alone is measured. For palettes of 256 variants: `PARTCRAFT_DATA=/tmp/wide kedro run --pipelines=parts
--params parts.variants=256`, and then this with the same PARTCRAFT_DATA. Prints medians of five. Run nothing beside it.
"""

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil
from playwright.sync_api import Page, sync_playwright

_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env")
    parser.add_argument("--pictures", type=int, default=100, help="to watch the memory over")
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kedro", "compose", "--no-browser", f"--port={port}"]
    server = subprocess.Popen(
        command + ([f"--env={arguments.env}"] if arguments.env else []), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    if not any("Compose at" in line for line in server.stdout):
        sys.exit("The page did not start.")
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            address = f"http://127.0.0.1:{port}"
            tell("page ready", [time_of(lambda: open_page(page, address)) for _ in range(_ROUNDS)])
            if page.locator("#make").is_enabled():
                make(page, "make")  # which waits for the model, once
                for name, button in (("a rough picture, 6 steps", "make"), ("a fine one, 20 steps", "fine")):
                    tell(name, [time_of(partial(make, page, button)) for _ in range(_ROUNDS)])
                watch_memory(page, psutil.Process(server.pid), arguments.pictures)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.locator("#variants img[src]").first.wait_for()


def make(page: Page, button: str) -> None:
    made = page.locator(".node").count()
    page.click(f"#{button}")
    page.locator(".node").nth(made).wait_for()


def watch_memory(page: Page, server: psutil.Process, pictures: int) -> None:
    """Resident memory of the server after each tenth of the pictures."""
    found = []
    for number in range(pictures):
        page.click("#shuffle")
        make(page, "make")
        if (number + 1) % max(1, pictures // 10) == 0:
            found.append(f"{server.memory_info().rss / 2**20:.0f}")
    print(f"MiB of the server over {pictures} pictures: {' '.join(found)}")


def time_of(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tell(name: str, seconds: list[float]) -> None:
    print(f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})", flush=True)


if __name__ == "__main__":
    main()
