"""`python -m benchmarks.memory PATCHES REPORTS`: bytes top-k takes beyond inputs and result."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.top_k import BLOCK, K, embeddings
from clipit_lib.pairing import top_k

STATUS = Path("/proc/self/status")
BALLAST = 2**27  # numbers, 512 MiB


def peak() -> int:
    """The most memory that this process has held so far, in bytes."""
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    # On Linux `ru_maxrss` would begin with what the parent process held.
    held = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert held is not None
    return 1024 * int(held[1])


def main(patches: int, reports: int) -> None:
    torch.set_num_threads(1)
    images, texts = embeddings(patches, 0), embeddings(reports, 1)
    top_k(images[:64], texts[:64], K)  # what the library itself loads
    # Held to the end: an earlier peak (imports) must not hide what comes now.
    ballast = np.ones(BALLAST, np.float32)
    before = peak()
    pairs = top_k(images, texts, K, BLOCK)
    print(peak() - before - pairs.reports.nbytes - pairs.similarities.nbytes)
    del ballast


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
