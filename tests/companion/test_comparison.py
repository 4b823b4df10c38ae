"""Tables, words and the gallery of a study, from simulated runs whose answer is known."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from clipit_lib.errors import ClipItError
from clipit_lib.paths import repository
from clipit_lib.runs import StoredRun
from clipit_lib.settings import RunSpec
from companion import paper, paths
from companion.figures import meaning, style, write_gallery
from companion.figures.accuracy import comparison_figure, far_settings, table1_figure
from companion.specs import label
from companion.statistics import JUDGED, Gain, judgement
from companion.tables import (
    Comparison,
    compare,
    comparison_table,
    comparison_words,
    gain_table,
    judged_words,
    recall_table,
    run_table,
    score_table,
)

CHANCES = {"clip_it": 0.8, "clip_it/early_fusion": 0.95, "lora_only": 0.55}


class Run(StoredRun):
    """A stored run whose test answers are simulated: right with a known chance."""

    def predictions(self, split: str = "test") -> pd.DataFrame:
        right = CHANCES.get(self.spec.setting, 0.6)
        rng = np.random.default_rng([self.spec.seed, round(1000 * right)])
        labels = np.arange(400) % 2
        answer = np.where(rng.random(400) < right, labels, 1 - labels)
        frame = pd.DataFrame({"sample": np.arange(400).astype(str), "group": "", "label": labels})
        return frame.assign(logit_0=1.0 - answer, logit_1=answer * 1.0)


def simulated(setting: str, seed: int, dataset: str = "d") -> Run:
    spec = RunSpec.model_construct(dataset=dataset, backbone="b", setting=setting, seed=seed)
    return Run(Path(f"{dataset}_{setting.replace('/', '_')}{seed}"), spec)


@pytest.fixture
def found() -> Comparison:
    stored = [simulated(name, seed) for name in CHANCES for seed in (0, 1, 2)]
    return compare(stored, "clip_it")


def test_differences_are_those_of_the_means_and_their_signs_are_said(found: Comparison) -> None:
    means = found.runs.groupby("setting")["balanced_accuracy"].mean()
    gains = found.gains.set_index("second")["gain"]
    for setting in ("clip_it/early_fusion", "lora_only"):
        assert gains[setting] == pytest.approx(means[setting] - means["clip_it"])
    words = comparison_words(found)
    better, worse = words.split("**hurts**:")
    assert "**helps**: early fusion +" in better and "LoRA only -" in worse
    assert len(found.keys) == 9


def test_what_is_undecided_says_what_would_decide_it() -> None:
    rows = pd.DataFrame(
        [judgement(Gain(2.0, 0.5, 1e9)), judgement(Gain(0.3, 1.0, 1e9))], columns=JUDGED
    )
    sure, open_ = judged_words(rows)
    assert sure.startswith("+2.0 [+1.0, +3.0] points, **helps**; ") and "times" not in sure
    # (1.96 + 0.84) errors of one point; to find one point the error must fall to 1 / 2.8.
    assert open_.startswith("+0.3 [-1.7, +2.3] points, **undecided**; a gain of 2.8 would")
    assert open_.endswith("one of 1 with 8 times the seeds and patients")


def test_cells_may_have_settings_of_their_own() -> None:
    names = {"d": ("clip_it", "lora_only"), "e": ("clip_it", "clip_it/early_fusion")}
    stored = [simulated(n, seed, d) for d, each in names.items() for n in each for seed in (0, 1)]
    found = compare(stored, "clip_it")
    cells = found.gains[["dataset", "second"]].to_numpy().tolist()
    assert cells == [["d", "lora_only"], ["e", "clip_it/early_fusion"]]
    assert len(comparison_table(found)) == 4
    figure = comparison_figure(found)
    labels = {text.get_text() for axis in figure.axes for text in axis.get_yticklabels()}
    plt.close(figure)
    assert {"LoRA only", "early fusion"} <= labels


def test_what_learns_from_wrong_labels_is_beside_what_learns_from_the_same() -> None:
    own = ("unimodal", "unimodal/label_noise_60")
    names = ("clip_it", "clip_it/early_fusion/label_noise_60", "clip_it/label_noise_60", *own)
    stored = [simulated(name, seed) for name in names for seed in (0, 1, 2)]
    wrong = "clip_it/label_noise_60"
    pairs = [(wrong, names[1]), ("clip_it", own[0]), (wrong, own[1])]
    found = compare(stored, "clip_it")
    assert found.gains[["first", "second"]].apply(tuple, axis=1).tolist() == pairs
    assert ", against CLIP-IT, with the same labels: " in comparison_words(found)
    recalls = recall_table(stored, "clip_it")
    assert {*zip(recalls["second"], recalls["first"], strict=True)} == {*pairs}
    scores = score_table(stored, "clip_it").set_index("setting")
    assert scores.index[scores["brier_gain"].isna()].tolist() == ["clip_it", wrong]
    # Where nobody asked for the reference with those labels, nothing is compared with others.
    few = [run for run in stored if run.spec.setting != wrong]
    with pytest.raises(ClipItError, match=r"clip_it has seeds \[\]"):  # nor with any
        compare([run for run in few if run.spec.setting != "clip_it"], "clip_it")
    found = compare(few, "clip_it")
    shown = comparison_table(found).set_index("setting")["over CLIP-IT"]
    assert shown[shown != ""].index.tolist() == [label("unimodal")]
    figure = comparison_figure(found)
    left, right = ([text.get_text() for text in axis.texts] for axis in figure.axes)
    plt.close(figure)
    assert left == ["80.8 ▸"] and right == []  # the reference is far from all, and over nothing


def test_gains_of_table_1_have_one_scale_and_accuracies_their_own() -> None:
    runs = [simulated(name, seed, d) for name in ("lora_only", "clip_it") for seed in (0, 1)
            for d in ("d", "e")]  # fmt: skip
    gains = gain_table(runs, [("lora_only", "clip_it")])
    gains.loc[gains["dataset"] == "e", ["gain", "low", "high"]] += 10
    left, right, lower_left, lower_right = table1_figure(run_table(runs), gains).axes
    plt.close("all")
    assert right.get_xlim() == lower_right.get_xlim()
    assert lower_right.get_xlim()[1] > gains["high"].max()
    assert not left.get_shared_x_axes().joined(left, lower_left)


def test_the_reference_is_a_mark_at_zero_on_its_line(found: Comparison) -> None:
    accuracy, difference = comparison_figure(found).axes
    plt.close("all")
    line = [text.get_text() for text in accuracy.get_yticklabels()].index("CLIP-IT")
    drawn = {(*mark.get_xdata(), mark.get_marker(), mark.get_color()) for mark in difference.lines
             if mark.get_ydata()[0] == line and mark.get_marker() != "None"}  # fmt: skip
    assert drawn == {(0, "D", style.look("clip_it")[0])}
    assert not difference.texts


def test_an_interval_looks_as_its_word_says_and_the_papers_number_is_hollow(
    found: Comparison,
) -> None:
    gains = pd.DataFrame(
        {"gain": [2.0, -2, 0, 1], "low": [1.0, -3, -0.5, -1], "high": [3.0, -1, 0.5, 3]}
    )
    gains["word"] = ["helps", "hurts", "equivalent", "undecided"]
    _, axis = plt.subplots()
    style.forest(axis, gains.assign(paper=[np.nan, 1.5, np.nan, 4]), said="abcd")
    plt.close("all")
    drawn = [(mark.get_marker(), mark.get_fillstyle(), float(mark.get_xdata()[0]))
             for mark in axis.lines if mark.get_marker() not in ("None", "*")]  # fmt: skip
    assert drawn == [("D", "full", 2), ("X", "full", -2), ("s", "left", 0), ("o", "none", 1)]
    stars = [mark for mark in axis.lines if mark.get_marker() == "*" and mark.get_xdata()[0] > 0]
    assert [(float(*s.get_xdata()), s.get_ydata()[0]) for s in stars] == [(1.5, 1), (4, 3)]
    assert {mark.get_markerfacecolor() for mark in stars} == {"none"}
    assert [text.get_text() for text in axis.texts] == list("abcd")
    legend = [handle.get_label() for handle in style.meanings(gains.assign(paper=1.0))]
    assert legend == ["helps", "hurts", "equivalent", "undecided", "paper"]
    legend = [handle.get_label() for handle in style.meanings(gains, by_filling=True)]
    assert legend == ["helps or hurts", "equivalent", "undecided"]


def test_each_setting_has_one_colour_whatever_is_changed_in_it() -> None:
    names = ["unimodal", "lora_only", "clip_it", "clip_it/architecture_only",
             "clip_it/random_reports", "contrastive", "text"]  # fmt: skip
    colours = [style.look(name)[0] for name in names]
    assert len(set(colours)) == len(colours)
    alike = {"clip_it/lambda_3": "clip_it", "vision": "unimodal", "text/terms": "text",
             "clip_it/random_reports/labels_5": "clip_it/random_reports"}  # fmt: skip
    for name, like in alike.items():
        assert style.look(name) == style.look(like)
    assert style.look("clip_it/early_fusion") == style.OTHER
    assert not {
        style.OTHER[0],
        *style.HUES,
        *style.CYCLE,
        *(word[0] for word in style.WORDS.values()),
    } & {*colours[:5]}


def test_a_figure_fits_a_column_with_text_of_seven_points(found: Comparison) -> None:
    figure = comparison_figure(found)
    left, right = figure.axes
    style.in_a_column(figure)
    figure.draw_without_rendering()
    width = figure.get_tightbbox().width
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    names = [text.get_text() for text in right.get_yticklabels() if text.get_visible()]
    plt.close(figure)
    assert 0.8 * 85 < 25.4 * width <= 85
    assert {text.get_fontsize() for text in texts} == {7}
    assert left.get_position().y0 > right.get_position().y1  # below each other
    assert right.get_position().width > 0.4
    assert names == ["CLIP-IT", "early fusion", "LoRA only"]


def test_what_is_cited_is_kept_in_a_columns_width_and_in_equal_bytes(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for folder in ("once", "again"):
        monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path / folder))
        for name in ("table2", "target_spread"):
            style.save(comparison_figure(found), "demo", name)
        kept.append({path.name: path.read_bytes() for path in paths.figures("demo").iterdir()})
    assert kept[0] == kept[1]
    pictures = sorted(name for name in kept[0] if not name.endswith(".json"))
    assert pictures == ["table2.png", "table2.svg", "table2_85mm.pdf", "target_spread.png",
                        "target_spread.svg"]  # fmt: skip


def test_the_last_bit_of_a_layout_changes_no_byte(tmp_path: Path) -> None:
    """As another order of its solver gives: the same picture, in the same places."""
    for name, moved in (("once", 0.0), ("again", 1e-13)):
        figure = plt.figure()
        for left in (0.1, 0.6):
            figure.add_axes((left + moved, 0.1, 0.3, 0.8)).plot([0, 1])
        style.write(figure, tmp_path / f"{name}.svg")
        plt.close(figure)
    text = (tmp_path / "once.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "again.svg").read_text(encoding="utf-8")
    assert text.count('<clipPath id="clip') == 2 and text.count("url(#clip0)") >= 1


@pytest.mark.parametrize(
    ("table", "dataset", "backbone", "second", "first", "points"),
    [
        ("table1", "phantom-crc", "phantom_vit_b16", "clip_it", "unimodal", -0.19),
        ("table1", "pcam", "uni", "clip_it", "lora_only", np.nan),
        ("table1", "crc5", "efficientnet_lite0", "clip_it", "unimodal", np.nan),
        ("table2", "phantom-bach", "phantom_clip_noisy", "vision", "contrastive", 7.99),
        ("figure5", "phantom-pcam", "phantom_vit_s16", "clip_it", "clip_it/without_lora", 1.63),
        ("figure5", "bach", "uni", "clip_it", "unimodal", np.nan),
        ("table6", "bach", "conch", "text", "text/prompts", 19.24),
        ("table7", "pcam", "uni", "clip_it/retriever_quiltnet", "clip_it", -0.39),
        ("table7", "phantom-pcam", "phantom_vit_b16", "clip_it/corpus_x", "clip_it", np.nan),
        ("table7", "pcam", "uni", "clip_it/corpus_synthetic-pcam", "clip_it", -0.1),
    ],
)
def test_the_papers_difference_stands_beside_ours(
    table: str, dataset: str, backbone: str, second: str, first: str, points: float
) -> None:
    """Worked by hand from the printed tables; the sign is that of ours, `second` over `first`."""
    row = {"dataset": dataset, "backbone": backbone, "second": second, "first": first}
    (found,) = paper.differences(table, pd.DataFrame([row]))
    assert found == pytest.approx(points, abs=0.005, nan_ok=True)


def test_a_setting_far_from_all_others_is_a_number_at_the_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chances = {"unimodal": 0.77, "lora_only": 0.79, "clip_it": 0.8, "clip_it/full_fine_tuning": 0.0}
    for setting, chance in chances.items():
        monkeypatch.setitem(CHANCES, setting, chance)
    stored = [simulated(name, seed) for name in chances for seed in (0, 1)]
    figure = comparison_figure(compare(stored, "clip_it"))
    accuracy, difference = figure.axes
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    low, high = accuracy.get_xlim()
    plt.close(figure)
    assert low > 40 and high < 100 and difference.get_xlim()[0] > -50
    assert "◂ 0.0" in words and any(text.startswith(("◂ -8", "◂ -7")) for text in words)


def test_far_is_by_the_range_of_the_others() -> None:
    assert far_settings(pd.Series({"a": 70.0, "b": 72.0, "c": 74.0, "d": 47.0})) == set()
    assert far_settings(pd.Series({"a": 70.0, "b": 72.0, "c": 74.0, "d": 45.0})) == {"d"}
    assert far_settings(pd.Series({"a": 70.0, "b": 72.0, "c": 74.0, "d": 99.0})) == {"d"}
    assert far_settings(pd.Series({"a": 70.0, "b": 71.0, "c": 99.0})) == set()  # too few to say


def test_the_table_has_one_row_a_setting_and_none_for_the_reference(found: Comparison) -> None:
    table = comparison_table(found).set_index("setting")["over CLIP-IT"]
    assert table["CLIP-IT"] == "" and table["early fusion"].startswith("+")
    assert len(table) == 3
    assert len(comparison_table(found.only(["lora_only"]))) == 2


def test_every_committed_figure_has_its_line_in_the_gallery() -> None:
    pictures = sorted((repository() / "figures").glob("*/*.png"))
    assert pictures
    assert [p.name for p in pictures if meaning(p.stem) is None] == []
    text = (repository() / "figures" / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in pictures if f"({p.parent.name}/{p.name})" not in text] == []


def test_the_gallery_shows_what_is_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path))
    for name in ("table7", "table1", "pairing_x"):
        path = paths.figures("demo") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lines = write_gallery().read_text().splitlines()
    shown = [line for line in lines if line.startswith("![")]
    assert [line.split("(")[-1] for line in shown] == [
        "demo/table1.png)", "demo/table7.png)", "demo/pairing_x.png)",
    ]  # fmt: skip


def test_the_papers_further_numbers() -> None:
    table = paper.printed("table2").pivot(
        index=["dataset", "backbone"], columns="setting", values="mean"
    )
    wins = (table["clip_it"] > table["contrastive"]).sum()
    assert len(table) == 6 and wins == 4
    seven = paper.printed("table7").pivot(index="backbone", columns="setting", values="accuracy")
    assert (seven["tcga_conch"] - seven["tcga_clip"]).round(2).tolist() == [1.97, 0.56, 1.11, 1.28]
    assert paper.printed("figure5").set_index("setting").loc["clip_it", "accuracy"] == 95.49
    assert paper.printed("table6").query("dataset == 'BACH'")["accuracy"].tolist() == [
        55.5,
        36.26,
        43.06,
    ]
