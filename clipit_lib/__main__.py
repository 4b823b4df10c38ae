"""`python -m clipit_lib` has no commands of its own."""

import sys

asked = " ".join(["python -m companion", *sys.argv[1:]])
sys.exit(f"error: the commands are those of the companion. Run `{asked}`")
