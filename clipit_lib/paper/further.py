"""The paper's numbers in Tables 2, 6, 7 and Figure 5 (accuracies in percent)."""

from __future__ import annotations

import pandas as pd

from clipit_lib.paper import HERE


def table2() -> pd.DataFrame:
    """Table 2, one row a cell: dataset, backbone (a CLIP), setting, mean, sd (three runs)."""
    return pd.read_csv(HERE / "table2.csv")


def figure5() -> pd.DataFrame:
    """What section 5 prints of Figure 5 (UNI on PCAM, one number each): setting, accuracy.

    Its other bars exist only as pixels.
    """
    return pd.read_csv(HERE / "figure5.csv")


def table6() -> pd.DataFrame:
    """Table 6, the text classifier on different texts: dataset, setting, accuracy."""
    return pd.read_csv(HERE / "table6.csv")


def table7() -> pd.DataFrame:
    """Table 7 on PCAM: backbone, setting (unimodal, or reports_retriever), accuracy.

    The paper swaps the labels of ViT-S16 and ViT-B16 relative to its Table 1; they are kept as
    printed and marked so.
    """
    return pd.read_csv(HERE / "table7.csv")
