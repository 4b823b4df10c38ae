"""Speed and memory, measured as ratios: `python -m benchmarks --help`.

Each benchmark times two ways to do the same in turn (A B A B ...) in one process, so that drift of
the machine meets both, and compares their medians. Nothing here is asserted by a test: a time is a
fact about one machine at one hour. Benchmarks import `clipit_lib`, never the other way.
"""

import clipit_lib  # noqa: F401 - holds the CPU's kernels before anything imports NumPy
