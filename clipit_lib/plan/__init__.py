"""What a profile will run, what of it is done, and about what the rest takes."""

from clipit_lib.plan.command import main as main
