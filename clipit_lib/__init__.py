"""CLIP-IT companion: pair patches with reports, distil the text, deploy the image alone.

Rooms, from the ground up; a room imports only from those before it (a test holds it to that).

Ground: kernels, held_torch, errors, paths, files, text_tables, names, compute, progress, settings,
divergence, paper, parallel, notebook.
Mathematics: statistics, losses, embedding_space, pairing, attention, lora.
What is read: data, reports, encoders, fetch.
What to run: inputs, workbench, specs, studies.
The method: model, training, variants, targets, tasks, labels, evaluation, outcome, paired_texts,
image_targets, report_task, text_stage, baselines, zero_shot, contrastive, text_run, experiment,
runs.
What comes out: doubts, tables, comparison, significance, sentences, decomposition, complementarity,
pareto, audit, shared_study, survival, archive.
The deployed image: deployment, classifier, tiles, inspection, text_statistics, cost.
Verdicts and pictures: own, claims, figures, knobs, effect_map.
Commands: fingerprint, plan, doctor, check, search_space, search_trials, search, train, export,
predict_tiles, predict, synthesize, collect, report, trace.
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
