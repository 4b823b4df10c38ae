"""`python -m clipit_lib report`: all results of a profile on one page that needs no network."""

from clipit_lib.report.page import main as main
