"""A browser without a window, where one is installed."""

from __future__ import annotations

import shutil

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# It asks the network for nothing by itself.
QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
