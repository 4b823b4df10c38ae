"""Print where a profile's results and figures go, a line each; an error is one line."""

import sys

from clipit_lib import paths
from clipit_lib.errors import ClipItError
from companion.profile import load_profile

try:
    profile = load_profile(sys.argv[1]).name
except ClipItError as error:
    sys.exit(f"error: {error}")
print(paths.results(profile), paths.figures(profile), sep="\n")
