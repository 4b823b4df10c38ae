"""What users get wrong, area by area: the cases of `test_bad_input.py`."""
