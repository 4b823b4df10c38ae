"""Zero-shot classification by the retriever: is it fit to pair?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool

from clipit_lib.data.contract import Split
from clipit_lib.encoders.tokens import embed_texts
from clipit_lib.workbench import Workbench

TEMPLATE = "an H&E image of {}."


def zero_shot_hits(bench: Workbench, dataset: str, split: Split) -> Bool[np.ndarray, " m"]:
    """Whether the nearest class text is that of the patch's class, for each patch of a split."""
    data = bench.dataset(dataset)
    prompts = [TEMPLATE.format(text) for text in data.class_texts]
    texts = embed_texts(bench.clip.text_tower, bench.clip.tokenizer, prompts, "truncate").numpy()
    answers = (bench.retriever_embeddings(dataset, split) @ texts.T).argmax(axis=1)
    hits: np.ndarray = answers == data.labels[data.indices(split)]
    return hits


def zero_shot_accuracy(bench: Workbench, dataset: str) -> float:
    """Balanced accuracy in percent on the test split, by the nearest class text."""
    data = bench.dataset(dataset)
    hits = pd.Series(zero_shot_hits(bench, dataset, "test"))
    return 100 * float(hits.groupby(data.labels[data.indices("test")]).mean().mean())


def zero_shot_table(bench: Workbench) -> pd.DataFrame:
    """One row a data set: balanced accuracy, and that of chance."""
    rows = [
        {
            "data set": name,
            "zero-shot balanced accuracy (%)": round(zero_shot_accuracy(bench, name), 1),
            "chance (%)": round(100 / len(bench.dataset(name).classes), 1),
        }
        for name in bench.profile.data
    ]
    return pd.DataFrame(rows)
