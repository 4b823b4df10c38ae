"""`python -m clipit_lib COMMAND`, an old name: starts `python -m companion COMMAND`."""

import os
import sys

os.execv(sys.executable, [sys.executable, "-m", "companion", *sys.argv[1:]])
