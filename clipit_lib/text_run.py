"""The text classifier of stage one as a run of its own: what the paired text alone knows."""

from __future__ import annotations

import pandas as pd
import torch

from clipit_lib import text_stage
from clipit_lib.inputs import Inputs
from clipit_lib.labels import choose_labels
from clipit_lib.model import TextHead
from clipit_lib.outcome import Outcome, raw_predictions
from clipit_lib.paired_texts import SPLITS
from clipit_lib.settings import RunSpec


def perform(spec: RunSpec, inputs: Inputs) -> Outcome:
    """h_t(f_t(text of each patch)) on validation and test (equation 2; Table 6, Figure 4).

    A test patch is paired as a training patch is: by its image, without its label.
    """
    assert spec.text is not None
    dataset = inputs.dataset(spec.dataset)
    paired, stage = text_stage.of_run(spec.text, inputs, choose_labels(spec, dataset), SPLITS)
    head = TextHead(stage.features.shape[1], len(dataset.classes))
    head.load_state_dict(stage.head)
    with torch.inference_mode():
        logits = head(stage.features).numpy()  # [texts, c]
    frames = [
        raw_predictions(dataset, split, logits[paired.chosen[split]])
        for split in ("validation", "test")
    ]
    state = {f"text_head.{name}": value for name, value in stage.head.items()}
    state |= {f"text_tower.{name}": value for name, value in stage.adapters.items()}
    return Outcome(state, [], pd.concat(frames, ignore_index=True), stage.notes)
