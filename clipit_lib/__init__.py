"""CLIP-IT: pair patches with reports, distil the text, deploy the image alone.

A run, from the ground up: `settings` (a run's specification), `data` and `encoders` (what it reads,
opened by `inputs`), `pairing` (equation 1), `text` (stage one, equation 2), `model`, `losses` and
`training` (equations 3 and 4), `run` (one run, whole), `runs` (the store), `predict` (the image
alone), `estimator` (all of it on arrays, for scikit-learn). Nothing here knows `companion`.
"""

import logging
import warnings

from clipit_lib import kernels

kernels.pin()  # before anything imports NumPy or PyTorch

# Said by tqdm, while other libraries are imported, wherever JupyterLab has no widgets; its bars are
# then plain text, which will do.
warnings.filterwarnings("ignore", message="IProgress not found")
# Said by torch wherever a CUDA compiler is found without a GPU: the doctor tells of GPUs.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

__version__ = "0.1.0"
