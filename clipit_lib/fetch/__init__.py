"""`python -m clipit_lib fetch`: bring data into `$CLIPIT_DATA`, checked and resumable."""

from clipit_lib.fetch.command import main as main
