"""A procedural H&E world with known truth: a phantom as in medical imaging, never tissue.

`worlds` says which classes there are and what they look like on average, `latents` draws the
morphology of each patch, `render` turns latents into pixels. Pixels depend on latents alone, never
on a label, so whatever a classifier finds out about the class it found in the morphology.
"""

from __future__ import annotations

# Part of what names a cache and a corpus: raise it when the same settings draw anything else.
VERSION = 1
