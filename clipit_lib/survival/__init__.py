"""Survival from bags of patch features (section F.6, Table 8): attention MIL with a Cox head.

The paper gives no details and its code holds none of this. What is done here is one reading of
it: the branch of CLIP-IT for classification, moved onto the patches of a slide.
"""
