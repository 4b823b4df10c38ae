"""A procedural H&E world with known truth: a phantom as in medical imaging, never tissue.

`latents` says which classes there are and draws the morphology of each patch, `patches` turns
latents into pixels, `reports` into sentences. Pixels depend on latents alone, never
on a label, so whatever a classifier finds out about the class it found in the morphology.
"""
