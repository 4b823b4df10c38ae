"""`python -m clipit_lib COMMAND`: the old name of `python -m companion COMMAND`, which it starts."""

import os
import sys

os.execv(sys.executable, [sys.executable, "-m", "companion", *sys.argv[1:]])
