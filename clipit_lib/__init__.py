"""CLIP-IT companion: pair patches with reports, distil the text, deploy the image alone.

Rooms, from the ground up; a room imports only from those before it:
errors, files, paths, settings, paper, data, reports, encoders, pairing, losses, lora, model,
training, text_stage, baselines, evaluation, statistics, runs, studies, survival, tables, predict,
pareto, cost, complementarity, embedding_space, inspection, text_statistics, own, figures, claims,
search, plan, check, collect, report, trace.
"""

import warnings

# Said by tqdm, while other libraries are imported, wherever JupyterLab has no widgets; its bars are
# then plain text, which will do.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
