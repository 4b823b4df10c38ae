"""The study around `clipit_lib`: profiles, the phantom, the pilot, studies, tables, figures, tools.

It imports `clipit_lib`, never the other way.
"""

import clipit_lib  # noqa: F401 - holds the CPU's kernels before anything imports NumPy
