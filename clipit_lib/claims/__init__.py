"""What the paper claims, judged by rules that were fixed before the runs."""
