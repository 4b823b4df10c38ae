"""Mistakes put into the method on purpose, one at a time: is there a test that notices?

    python tests/mutants.py                        # all
    python tests/mutants.py training.py seed       # those whose file or words have one of these

Each goes into a copy of the repository, never into the repository itself. What is slow to import is
imported once; a mistake is then a child of this process that runs the tests of its file, the fast
ones first, up to the first that fails. Ends with code 1 if a mistake survives.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("clipit_lib", "companion", "tests", "profiles", "pyproject.toml")
SLOW = (
    "torch", "timm", "peft", "open_clip", "transformers", "sklearn.cluster", "scipy.stats",
    "pyarrow.parquet", "jaxtyping", "hypothesis", "beartype", "torchsurv.loss.cox", "seaborn",
)  # fmt: skip
LONGEST = 300.0  # seconds; a mistake may leave a loop without an end

WHOLE = "core/test_whole_method.py::test_a_run_is_the_method_written_out"
# Most of the method is in two of its settings; those that are left come after them.
RUNS = (f"{WHOLE}[clip_it/word_dropout_30/labels_5]", f"{WHOLE}[clip_it/label_noise_30]", WHOLE)
STORE = (
    "core/test_runs.py::test_predictions_name_patches_and_patients",
    "core/test_runs.py::test_a_folder_that_is_not_finished_is_no_run",
    "core/test_runs.py::test_doubts_of_every_stage_are_kept_with_a_run",
    "core/test_predict.py::test_weights_of_another_run_or_encoder_are_refused",
    "core/test_whole_method.py::test_a_run_is_the_method_written_out[clip_it]",
)
STATISTICS = ("companion/test_statistics.py", "companion/test_significance.py")
SURVIVAL = (
    "companion/test_survival_metrics.py", "companion/test_survival_slides.py",
    "companion/test_survival.py",
)  # fmt: skip
# Tests of each file, those of milliseconds first.
TESTS: dict[str, tuple[str, ...]] = {
    "clipit_lib/pairing.py": ("core/test_pairing.py", "core/test_parity.py"),
    "clipit_lib/losses.py": ("core/test_losses_and_model.py",),
    "clipit_lib/model.py": (
        "core/test_losses_and_model.py", f"{WHOLE}[clip_it/switch_random_fusion]",
        "core/test_ablations.py::test_early_fusion_is_one_linear_layer_on_both_features",
        "core/test_ablations.py::test_direct_distillation_answers_from_vision_alone",
    ),
    "clipit_lib/lora.py": (
        "core/test_lora.py",
        "core/test_protocol.py::test_an_adapted_head_moves_through_its_adapter_alone_and_folds_away",
    ),
    "clipit_lib/training.py": (
        "core/test_training.py",
        "core/test_equations.py::test_equations_3_and_4_are_what_the_training_task_minimises",
        "core/test_divergence.py::test_validation_alone_and_a_later_epoch_stop_too",
        "core/test_divergence.py::test_a_doubtful_course_is_noted_and_a_healthy_one_is_not",
        "core/test_protocol.py::test_spread_is_total_variance_at_unit_length",
        WHOLE,
    ),
    "clipit_lib/text.py": (
        "core/test_report_task.py", *RUNS,
        "core/test_protocol.py::test_a_moving_target_reads_whole_texts_and_learns_with_the_image",
        "core/test_runs.py::test_predictions_name_patches_and_patients",
        "core/test_runs.py::test_doubts_of_every_stage_are_kept_with_a_run",
        "core/test_protocol.py::test_lora_is_where_the_switch_puts_it_in_both_towers",
        "core/test_protocol.py::test_class_texts_replace_the_least_similar_training_reports",
        "companion/test_controls.py::test_image_targets_are_the_retrievers_embeddings_or_few_of_"
        "their_centroids",
    ),
    "clipit_lib/inputs.py": (
        "companion/test_controls.py::test_one_report_for_all_is_the_most_used_one_of_training",
        "companion/test_controls.py::test_class_prompts_name_another_class_where_they_are_not_right",
        *RUNS, "companion/test_controls.py::test_each_patch_has_the_nearest_prompt_or_terms",
        "companion/test_controls.py::test_class_prompts_say_the_label_and_never_of_a_test_patch",
        "core/test_run_is_its_spec.py::test_inputs_that_are_not_those_of_the_specification_are_"
        "refused",
    ),
    "clipit_lib/run.py": (
        "core/test_runs.py::test_doubts_of_every_stage_are_kept_with_a_run",
        "core/test_protocol.py::test_a_moving_target_reads_whole_texts_and_learns_with_the_image",
        "core/test_protocol.py::test_lora_is_where_the_switch_puts_it_in_both_towers",
        *RUNS, "core/test_protocol.py::test_a_random_head_does_not_start_from_the_probe",
    ),
    "clipit_lib/runs.py": (
        *STORE, "core/test_divergence.py::test_predictions_that_are_not_finite_are_not_stored",
    ),
    "clipit_lib/predictions.py": STORE,
    "clipit_lib/predict.py": (
        f"{WHOLE}[clip_it/switch_imagenet_normalisation]",
        "core/test_predict.py::test_weights_of_another_run_or_encoder_are_refused",
        "core/test_predict.py::test_batches_of_any_number_of_patches_are_answered_in_order",
    ),
    "clipit_lib/settings.py": (
        "core/test_settings.py::test_stored_runs_keep_their_names",
        "core/test_settings.py::test_what_is_out_of_range_is_refused",
        "core/test_settings.py", WHOLE,
    ),
    "companion/exported.py": ("core/test_predict.py::test_class_embeddings_answer_by_cosines",),
    "companion/profile.py": ("core/test_pairing.py::test_table_names_images_and_reports",),
    **dict.fromkeys(("companion/paper/switches.yaml", "companion/paper/__init__.py"), (
        "core/test_settings.py::test_stored_runs_keep_their_names",
        "core/test_protocol.py::test_the_released_protocol_has_what_meets_on_a_data_set",
    )),
    "companion/train_encoders.py": ("core/test_losses_and_model.py",),
    "companion/archived.py": ("companion/test_committed_results.py",),
    "companion/measures.py": (
        "companion/test_embedding_space.py::test_histograms_count_levels_of_each_channel",
        "companion/test_embedding_space.py::test_the_floor_is_what_colours_tell_of_the_test_split",
    ),
    "companion/power.py": ("companion/test_power.py",),
    "companion/phantom/known.py": ("companion/test_power.py",),
    "companion/registration.py": ("companion/test_power.py",),
    "companion/shift.py": ("companion/test_shift.py",),
    "companion/statistics.py": (
        "companion/test_power.py",
        "core/test_runs.py::test_accuracies_by_hand",
        "core/test_pairing.py::test_diversity_by_hand", *STATISTICS,
    ),
    "companion/tables.py": STATISTICS[::-1],
    "companion/claims.py": (
        "companion/test_claims.py", "companion/test_claims_own.py",
        "companion/test_claims_ledger.py",
    ),
    "companion/survival/model.py": SURVIVAL,
    "companion/survival/__init__.py": SURVIVAL[::-1],
    "companion/survival/cohort.py": SURVIVAL[1:2],
}  # fmt: skip

# Of each file: the text that is found in it once, what takes its place, what is wrong then.
MISTAKES: dict[str, list[tuple[str, str, str]]] = {
    "clipit_lib/pairing.py": [
        ("F.normalize(torch.from_numpy(texts).to(device, exact), dim=-1)",
         "torch.from_numpy(texts).to(device, exact)", "long reports are preferred"),
        ("F.normalize(torch.from_numpy(images[rows]).to(device, exact), dim=-1)",
         "torch.from_numpy(images[rows]).to(device, exact)", "similarities are no cosines"),
        ("value[:, k - 1] == value[:, -1]", "value[:, k - 1] < value[:, -1]", "ties as topk likes"),
        ("& (k < reports)", "& (k > reports)", "ties at the border as topk likes"),
        ("similarity[tied].sort(dim=1, descending=True", "similarity[tied].sort(dim=1",
         "of a tied row the farthest reports"),
        ("index, by_index = index.sort(dim=1)", "by_index = index.argsort(dim=1)",
         "similarities of other reports"),
        ("slice(begin, begin + block)", "slice(begin, begin + block - 1)", "blocks with gaps"),
        ("share * np.log(share)", "share * np.log2(share)", "an effective number of another base"),
        ("if not 1 <= k", "if not 0 <= k", "rank 0 is let through"),
        ("for part in (images, texts) for", "for part in (images,) for",
         "NaN in one of the towers"),
    ],
    "clipit_lib/losses.py": [
        ("(1 - F.cosine", "(1 + F.cosine", "away from the text"),
        ("target.float(), dim=-1)).mean()", "target.float(), dim=-1)).sum()",
         "distillation grows with the batch"),
        ("label_smoothing=smoothing)", "label_smoothing=0.1)", "smoothed labels"),
        (".softmax(dim=-1), labels)", ".softmax(dim=0), labels)", "softmax over the batch"),
        ("groups[None, :]) & other", "groups[None, :])", "a patch has no positive"),
        ("F.cross_entropy(logits.T, own)", "F.cross_entropy(logits, own)", "one way only"),
    ],
    "clipit_lib/model.py": [
        ("nn.LeakyReLU(0.1)", "nn.LeakyReLU(0.01)", "another slope"),
        ("if self.normalise else distilled", "if not self.normalise else distilled",
         "h_d(v) of any length into h_t"),
        ("torch.eye(classes) / 2", "torch.eye(classes)", "fusion starts as the sum"),
        ("[super().answer(features, distilled), self.text_head(text)]",
         "[self.text_head(text), super().answer(features, distilled)]", "branches change places"),
        ("self.fusion.bias.zero_()", "pass", "fusion starts with a bias"),
        ("module.eval()", "pass", "running averages drift"),
        ("self.text_columns(F.normalize(distilled, dim=-1))", "self.text_columns(distilled)",
         "early fusion of features of any length"),
        ("nn.init.zeros_(self.text_columns.weight)", "pass", "early fusion starts at random"),
        ("spec.protocol.unit_distilled", "True", "a switch without effect"),
        ("        spec.protocol.fusion_start", '        "average"', "a switch without effect"),
        ('if spec.branch in ("early", "direct"):', 'if spec.branch == "early":',
         "direct distillation fuses"),
    ],
    "clipit_lib/lora.py": [
        ("lora.alpha / lora.rank", "lora.rank / lora.alpha", "the scale upside down"),
        ("product if product.shape == weight.shape else product.T", "product",
         "an embedding's adapter merged on its side"),
        ("lora_dropout=lora.dropout", "lora_dropout=0.0", "a setting without effect"),
        ("part.groups == 1", "part.groups >= 1", "adapters that cannot be merged"),
        ("~attn_mask if", "attn_mask if", "hidden is shown"),
        ("self.dropout if self.training else 0.0", "self.dropout", "attention dropped in use"),
        ("unflatten(0, (-1, self.heads))", "unflatten(0, (self.heads, -1)).transpose(0, 1)",
         "masks of other heads"),
        ("    layer.merge()", "    pass", "the head's adapter is lost"),
        ('if which == "all":', 'if which != "all":', "the other layers are adapted"),
        ("r=lora.rank", "r=1", "one rank"),
    ],
    "clipit_lib/training.py": [
        ("for _ in range(passes)]", "for _ in [0]] * passes", "each pass in the same order"),
        ("task.model.load_state_dict(kept, strict=False)", "pass",
         "the last checkpoint kept instead of the best"),
        ("if value < lowest", "if value > lowest", "the start kept instead of the best"),
        ('if keep == "best":', 'if keep == "last":', "what is kept changes places"),
        ("clip_grad_norm_(learned, clip)", "clip_grad_norm_(learned, math.inf)", "no clipping"),
        ("torch.randperm(task.rows, generator=generator)", "torch.arange(task.rows)",
         "batches never shuffled"),
        ("share * self.distillation_weight * distance", "share * distance", "lambda ignored"),
        ("optimiser.zero_grad()", "pass", "gradients add up"),
        ("losses.sum().backward()", "losses[0].backward()", "the first part alone is learned"),
        ("weight_decay=settings.weight_decay", "weight_decay=0.0", "no weight decay"),
        ("torch.optim.Adam(", "torch.optim.AdamW(", "another optimiser"),
        ("torch.Generator().manual_seed(seed)", "torch.Generator().manual_seed(0)",
         "the same batches for each seed"),
        ("round(task.rows * passes / ", "math.ceil(task.rows * passes / ", "more steps"),
        ("task.begin(epoch)", "task.begin(0)", "words dropped once instead of in each epoch"),
        ("self.epoch = epoch", "self.epoch = 0", "the targets of the first epoch"),
        ("self.features[epoch] if", "self.features[0] if", "the features of the first epoch"),
        ("self.report[epoch] if", "self.report[0] if", "the pairs of the first epoch"),
        ("steps * (i + 1) / checks", "steps * i / checks", "looks too early"),
        ("modules.eval()\n    with", "with", "a look in training mode"),
        ("train_mode(modules)\n    return value", "return value", "no training mode after a look"),
        ("epoch + step / steps", "epoch + step", "epochs counted in steps"),
        ("self.train.labels[rows[own]]", "self.train.labels[own]", "labels of other patches"),
        ("generator if self.augmented", "generator if not self.augmented",
         "patches are augmented when they should not"),
        ("return float(F.cross_entropy(logits, self.validation.labels))",
         "return float((logits.argmax(1) != self.validation.labels).float().mean())",
         "chosen by accuracy"),
        ("on_device(self.train[1][rows])", "on_device(self.train[1][: len(rows)])",
         "labels of other patches"),
        ("min(looks)) >= start", "min(looks)) > start", "no better than the start is fine"),
        ("last > RISE * first", "last > first", "a loss that stays is doubtful"),
        ("not math.isfinite(value)", "math.isnan(value)", "infinity is let through"),
        ("epoch + at > 1", "epoch + at > 0", "a first step blames the learning rate"),
        ("F.normalize(features.detach().float(), dim=-1)", "features.detach().float()",
         "the spread of vectors of any length"),
        ('history if keep == "best" else history[-1:]', "history", "doubts of weights not kept"),
        ("sum(seen) / len(seen)", "seen[-1]", "the spread of the last batch"),
        ("for y in (labels, labels[other])", "for y in (labels, labels)", "images alone are mixed"),
        ("weight * images + (1 - weight) * images[other]", "images", "labels alone are mixed"),
        ("    _exchange(learned, mean)\n    if keep", "    if keep", "the last average is lost"),
    ],
    "clipit_lib/text.py": [
        ("+ weight * said)", "* weight + said)", "soft labels weighted the other way"),
        ("soft = (F.one_hot", "soft = (0 * F.one_hot", "soft labels alone"),
        ("self.redraw(epoch)", "self.redraw(0)", "words dropped once instead of in each epoch"),
        ("self.model(self.windows.select(part))", "self.model(self.read.select(part))",
         "validation reads what is left of the texts"),
        ("windows, counts, held,", "windows, counts, counts,",
         "stage one chosen by training's pairs instead of validation's"),
        ("(self.rows / len(rows) / self.counts.sum())", "(1 / self.counts[rows].sum())",
         "a batch of rare reports counts as much"),
        ("self.read.select(self.used[rows])", "self.read.select(rows)", "other reports are read"),
        ("counts / counts.sum()", "counts / counts.sum(dim=1, keepdim=True)",
         "validation counts reports, not patches"),
        ("torch.ones(len(labels)), accumulate=True", "torch.ones(len(labels))",
         "a report counts once"),
        ("settings, spec.seed, stage=stage", "settings, 0, stage=stage", "a seed without effect"),
        ("embed_texts(tower,", "embed_texts(clip.text_tower,", "what was learned is lost"),
        ("spec.lora, spec.lora_targets", "spec.lora", "a switch without effect"),
        ("spec.word_dropout, spec.seed, epoch", "spec.word_dropout, 0, epoch",
         "the same words for each seed"),
        ("STAGE_TWO + epoch", "epoch", "stage two drops the words of stage one"),
        ("tower.load_state_dict(stage.adapters, strict=False)", "pass",
         "features of the tower before stage one"),
        ("clone(), head, lora", "clone(), {}, lora", "the text head is not handed on"),
        ("training.epochs)[:, at]", "training.epochs)", "pairs of other patches"),
        ('paired.chosen["train"][at]', 'paired.chosen["train"]', "targets of other patches"),
        ("close[:, 0] < np.quantile", "close[:, 0] > np.quantile",
         "the most similar reports are replaced"),
        ("logits[paired.chosen[split]]", 'logits[paired.chosen["test"]]',
         "validation is answered by test's texts"),
        ("held, spec.double_softmax", "held, False", "a switch without effect"),
        ("clip.tokenizer.windows(texts, settings.long_text)",
         'clip.tokenizer.windows(texts, "truncate")', "stage one reads the beginning only"),
        ('if spec.stage == "ignored"', 'if spec.stage == "none"', "a switch without effect"),
        ("tuple(notes))", "())", "doubts of stage one are forgotten"),
        ("asked.training.long_text)\n        return stage, Moving",
         '"truncate")\n        return stage, Moving', "a moving target reads the beginning only"),
        ('embeddings[at]', "embeddings", "targets of other patches"),
        ("F.normalize(means, dim=-1)", "means", "centroids of any length"),
        ("[spec.seed, 8]", "[0, 8]", "the same noise for each seed"),
        ('effective_number(paired_reports(spec, inputs, "train"))', "len(images)",
         "as many centroids as patches"),
    ],
    "clipit_lib/inputs.py": [
        ("rng.random(count) < spec.pairing.right", "rng.random(count) > spec.pairing.right",
         "an oracle that is wrong where it should be right"),
        ("rng.random(len(own)) < (", "rng.random(len(own)) > (", "prompts of the wrong share"),
        ("rng.integers(1, len(firsts)", "rng.integers(0, len(firsts)", "another class that is not"),
        ("return own\n", "return own[::-1]\n", "reports of others"),
        ("chosen[labels == label]", "chosen[labels != label]", "reports of other labels"),
        ("row[row != mine]", "row", "its own among its neighbours"),
        ("  rng = np.random.default_rng([spec.seed, 2])", "  rng = np.random.default_rng([0, 2])",
         "random reports without a seed"),
        ("rank).reports[:, -1]", "rank).reports[:, 0]", "a rank without effect"),
        ('nearest(spec, inputs, "train", rank)', "nearest(spec, inputs, split, rank)",
         "a constant of its own in each split"),
        (".argmax())", ".argmin())", "the least used report"),
        ("([spec.seed, 5])", "([0, 5])", "shuffled without a seed"),
        ('np.zeros_like(labels) if spec.pairing.reports == "shuffled" else labels', "labels",
         "shuffled within classes only"),
        ("([spec.seed, 6])", "([spec.seed, 2])", "redrawn reports begin as the random ones"),
        ("values[rng.permutation(rows)]", "values[rows]", "nothing is shuffled"),
        (".argmax(axis=1) for s", ".argmin(axis=1) for s", "the farthest prompt"),
        ("of_class[0] for", "of_class[-1] for", "another template"),
        ("dict(zip(SPLITS, parts", "dict(zip(SPLITS[::-1], parts", "terms of another split"),
        ("terms, TERMS_PER_IMAGE", "terms, 1", "one term"),
        ("< spec.label_noise", "< spec.label_noise / 2",
         "label noise at half its share"),
        ('spec.noise_to == "next"', "spec.noise_to is None", "wrong labels of another kind"),
        ("rest[: round(spec.unlabelled * len(rest))]", "rest", "all of the other patches"),
        ("scale * F.one_hot", "F.one_hot", "few labels weigh little"),
        ("([spec.seed, 9])", "([0, 9])", "the same patches without labels for each seed"),
        ("rng.integers(1, classes", "rng.integers(0, classes", "some flips change nothing"),
        ("([spec.seed, purpose])", "([0, purpose])", "the same labels for each seed"),
        ("[:count] for", "[: count + 1] for", "one label more"),
        ("return np.sort(np.concatenate(", "return (np.concatenate(", "rows in another order"),
        ("np.searchsorted(dataset.indices(split), own)", "np.arange(len(own))",
         "features of other patches"),
        ("for purpose in (1, 7)", "for purpose in (1, 1)", "draws of training for validation"),
        ("if asked != here:", "if False:", "other data than the run was specified with"),
        ("if count is None", "if count is not None", "all labels"),
    ],
    "clipit_lib/run.py": [
        ("FeatureTask(head, train, validation), settings, seed",
         "FeatureTask(head, train, validation), settings, 0", "the probe's seed fixed to 0"),
        ('if spec.branch == "text_only":', "if spec.branch is not None:",
         "CLIP-IT is a text classifier"),
        ("with seeded(seed):", "with seeded(0):", "the probe begins the same for each seed"),
        ("[chosen.at]", "[: len(chosen.at)]", "features of other patches"),
        ('if own_head != "random_adapted":', 'if own_head == "random_adapted":',
         "the probe's head is not handed on"),
        ("model.text_head.load_state_dict(stage_one.head)", "pass",
         "the text head of stage one is not handed on"),
        ("seeded(spec.seed):\n        if", "seeded(0):\n        if", "heads begin the same"),
        ('seen["train"].at)', 'labels["train"].at)', "targets of other patches"),
        ("stage_one.notes, seen", "stage_one.notes, labels", "patches without labels are left out"),
        ("fit(task, training, spec.seed", "fit(task, training, 0", "stage two without a seed"),
        ("how = protocol.checkpoint,", 'how = "best",', "a switch without effect"),
        ("spec.smoothing or 0.0, spec.mixup", "0.0, None", "no brake works"),
        ("stage, start, spec.averaged", "stage, start", "the average is not kept"),
        ("spec.distillation_weight or 0.0", "1.0", "lambda ignored"),
        (", protocol.double_softmax", ", False", "a switch without effect"),
        ("training.augment,", "False,", "a setting without effect"),
        ("model, targets, floor)", "model, None, floor)", "nothing is distilled"),
        ("ImageTask(model, train, held,", "ImageTask(model, train, train,",
         "stage two chosen by training's patches"),
        ('min(row["validation"] for row in course)', 'max(row["validation"] for row in course)',
         "the probe's worst look is what to improve on"),
        ("spec.lora, which)", "spec.lora)", "a switch without effect"),
        ('requires_grad_(spec.adaptation == "full")', "requires_grad_(True)",
         "a frozen backbone learns"),
        ("notes += course.notes", "pass", "doubts of stage two are forgotten"),
        ("targets.tower if isinstance(targets, MovingTargets) else None", "None",
         "a moving target stands still"),
        ("= course.notes, None, None", "= (), None, None", "doubts of the probe are forgotten"),
        ("image_embeddings(*made_by, split)", 'image_embeddings(*made_by, "train")',
         "the probe chosen by features of training's patches"),
    ],
    "clipit_lib/runs.py": [
        ('frame["split"] == split', 'frame["split"] != split', "the other split"),
        ("torch.tensor(outcome.predictions.filter(like=LOGIT).to_numpy())", "torch.zeros(1)",
         "predictions that are not finite are stored"),
        ("inputs.runs / spec.key", "inputs.runs / spec.setting", "runs of other seeds are read"),
        ('"notes": outcome.notes', '"notes": ()', "doubts are forgotten"),
        ("if (folder / DONE).exists() else None", "if folder.exists() else None",
         "an unfinished run is read"),
        ('metadata={"spec": spec.model_dump_json()}', "metadata={}",
         "weights do not say whose they are"),
        ('.glob(f"[0-9a-f]*/{DONE}")', '.glob(f"[0-9]*/{DONE}")', "some runs are not listed"),
    ],
    "clipit_lib/predictions.py": [
        ('[*own["group"]]', '[*own["id"]]', "patients are forgotten"),
        ("dataset.samples.iloc[dataset.indices(split)]", "dataset.samples.iloc[: len(logits)]",
         "names of other patches"),
    ],
    "clipit_lib/predict.py": [
        (".softmax(dim=-1).cpu()", ".sigmoid().cpu()", "no probabilities"),
        ("lora.merge(encoder.model, adapters, spec.lora)", "pass", "adapters are lost"),
        ('if "spec" not in about or RunSpec.model_validate_json(about["spec"]) != spec:',
         'if "spec" not in about:', "weights of another run"),
        ("weights.require_same(spec, encoder.weights_hash, folder)", "pass",
         "another backbone's weights"),
        ("weights.sources_of(spec), spec.normalisation)", "weights.sources_of(spec))",
         "patches are normalised in another way than in training"),
        (".unexpected_keys:", ".unexpected_keys[:0]:", "unknown weights are passed over"),
        ("pixels[i : i + BATCH]", "pixels[: BATCH]", "the first batch again and again"),
    ],
    "clipit_lib/settings.py": [
        ('mode="json", exclude_none=True)', 'mode="json")', "a new field renames every run"),
        ('extra="forbid"', 'extra="ignore"', "a misspelt key is passed over"),
        ("frozen=True, strict=True", "frozen=True", "types are converted"),
        ("frozen=True, strict", "frozen=False, strict", "settings that change"),
        ("gradient_clip: Rate = 0.5", "gradient_clip: Rate = 1.0", "another default"),
        ("weight_decay: Weight = 1e-4", "weight_decay: Weight = 0.0", "another default"),
        ("rank: Positive = 16", "rank: Positive = 8", "another default"),
        ("ge=0, lt=1)]", "ge=0, le=1)]", "all words may be dropped"),
        ("Rate = Annotated[float, Field(gt=0", "Rate = Annotated[float, Field(ge=0",
         "a learning rate of zero"),
        ("Seed = Annotated[int, Field(ge=0)]", "Seed = int", "a negative seed"),
    ],
    "companion/measures.py": [
        ("(256 // LEVELS) + offset)", "(256 // LEVELS))", "all channels in one histogram"),
        ('for split in ("train", "test")', 'for split in ("test", "test")', "seen twice"),
    ],
    "companion/archived.py": [
        ('if split != "test"', "if False", "test predictions for those of validation"),
        ("dropna(axis=1, how=\"all\")", "fillna(0.0)", "classes that are not there answer"),
    ],
    "companion/power.py": [
        ("spread.right + gain]", "spread.right]", "no gain is planted"),
        ('own + seed) / np.sqrt(2)', 'own + seed)', "what settings do not share counts twice"),
        ("each.low <= gain <= each.high", "each.low <= gain", "half of the intervals' coverage"),
    ],
    "companion/phantom/known.py": [
        ('high = truth if SPLITS[number] == "test" else', "high =", "test labels are noisy"),
        ("else u < probability", "else u > probability", "labels are upside down"),
        ("which.random(len(rows)) < self.informs",
         "which.random(len(rows)) > self.informs", "reports inform where they should not"),
        ("[[1 + informs, 1 - informs]", "[[1, 1]", "text says nothing of one class"),
    ],
    "companion/registration.py": [
        ('exclude={"deviations"}', "exclude=set()", "a deviation is a new question"),
        ("if len(stored) < wanted:", "if not stored:", "missing runs are passed over"),
        ("finished is None or", "finished is not None and", "runs of no known time"),
        ("< registered.since", "> registered.since", "runs younger than the question"),
    ],
    "companion/shift.py": [
        ("tested - seen.mean(axis=0)", "tested", "distance from no stain at all"),
        ("/ seen.std(axis=0)", "", "distance in no unit of its own"),
        ('.transform("mean")', '.transform("first")', "one patch speaks for its patient"),
        ("ascending=False)", "ascending=True)", "the nearest stain"),
        ("units(samples, \"id\")", "samples[\"id\"].to_numpy()", "no patients"),
        ('[own[0].predictions()["sample"]]', "", "samples in another order"),
        ("cell.second[:, part]", "cell.second[:, ~part]", "of the other samples"),
    ],
    "companion/statistics.py": [
        ("of_seed > residual, of_unit > residual", "True, False", "patients have no variance"),
        ("1.0 - share.sum()", "0.0", "what is left over is not taken off"),
        ("(share * [gain.error", "([gain.error", "cells as sure as one"),
        ("np.array([len(tables) for", "np.array([1 for", "data sets count alike"),
        ("if self.one_seed else found", "if False else found", "one seed decides"),
        ("len(size) * off.mean(axis=2)", "off.mean(axis=2)", "patients that add little"),
        ("if sure.low > 0 or", "if likely.low > 0 or", "helps at 90%"),
        ("-margin < likely.low", "-margin < likely.estimate", "equivalent by its estimate"),
        ("quantiles.sum()", "quantiles[0]", "a power of one half"),
        ("hits - sure, BINS", "hits, BINS", "calibration without confidence"),
        ("labels == label, said[:, label]", "labels == 0, said[:, label]", "one class's ranks"),
        ("len(names) * off)", "off)", "patients that add little to a score"),
        ("return 100 * float(correct(predictions).mean())",
         "return float(correct(predictions).mean())", "no percent"),
        ('.groupby(labels).mean().mean())', ".mean())", "not balanced"),
        ("logits.argmax(axis=1)", "logits.argmin(axis=1)", "the lowest logit answers"),
        ("[1])[::-1]", "[1])", "the share of the least used reports"),
        ("[2.5, 97.5]", "[5, 95]", "intervals of 90%"),
        ('samples["group"] != ""', 'samples["group"] == ""', "patches are drawn, not patients"),
        ("self.second.astype(float) - self.first", "self.first.astype(float) - self.second",
         "losses for gains"),
        ("(drawn > 0).sum(axis=1)", "drawn.shape[1]", "a class that was not drawn counts as wrong"),
        ("sums.setdefault(cell.dataset, [])", "sums.setdefault(str(len(sums)), [])",
         "patients are drawn apart for each backbone"),
        ("total.mean(axis=0).sum(axis=0)", "total[0].sum(axis=0)", "the gain of the first seed"),
        ("seed_weight = seed_weight / seeds", "seed_weight = np.full_like(seed_weight, 1 / seeds)",
         "seeds are not drawn"),
        ("np.array_equal(cell.groups, other.groups)", "True", "other patients are let through"),
        ("np.mean(per_cell, axis=0)", "per_cell[0]", "the interval of the first cell"),
        ("size.sum(axis=0)).mean()", "size.sum()).sum()", "plain accuracy"),
    ],
    "companion/exported.py": [
        ("Output(F.normalize(self.backbone(images), dim=-1) @", "Output(self.backbone(images) @",
         "cosines of embeddings of any length"),
    ],
    "companion/profile.py": [
        ("np.arange(1, k + 1)", "np.arange(k)", "the best report has rank 0"),
        ("np.repeat(ids.to_numpy(), k)", "np.tile(ids.to_numpy(), k)",
         "reports of one image beside another's name"),
    ],
    "companion/paper/switches.yaml": [
        ("{checkpoint: last}", "{checkpoint: best}", "a switch without effect"),
        ("fusion_start: random, unit_distilled: false", "fusion_start: random", "half a switch"),
    ],
    "companion/paper/__init__.py": [
        ('"letters_lost": "PCAM"', '"letters_lost": "CRC"', "another data set's switch"),
    ],
    "companion/train_encoders.py": [
        ("target = same / same.sum(dim=1, keepdim=True)", "target = same",
         "classes count by their number of pairs"),
        ("F.cross_entropy(logits.T, target)", "F.cross_entropy(logits, target)", "one way only"),
        (".roll(len(first))", ".roll(1)", "the partner is the next patch"),
        ("both.T / temperature", "both.T * temperature", "the temperature upside down"),
        ("-1e9", "0.0", "a view is its own rival"),
    ],
    "companion/tables.py": [
        ('gains["smallest"] / MARGIN) ** 2', 'gains["smallest"] / MARGIN)',
         "errors fall with the number, not its root"),
        ('(gains["word"] == Word.UNDECIDED) &', "", "what is decided asks for more"),
        ("np.arange(len(p), 0, -1)", "len(p)", "Bonferroni for Holm"),
        ("np.maximum.accumulate(", "(", "an adjusted p below the one before"),
        ("np.minimum(stepped, 1.0)", "stepped", "a p above 1"),
        ("first & ~second).sum()), int((second & ~first)",
         "second & ~first).sum()), int((first & ~second)", "lost and gained change places"),
        ("binomtest(gained, differ)", "binomtest(gained, len(first))", "no paired test"),
        ("if one and one == other}", "if one and other}", "settings of other seeds"),
        ("seeds != sorted(frames[second])", "False", "settings of other seeds"),
        ("np.finfo(float).tiny", "1e-16", "small p-values are cut off"),
    ],
    "companion/claims.py": [
        ("value.low > least, none", "gain.estimate > least, none", "no interval is asked for"),
        ("none or value.high < least", "value.high < least", "nothing of a point is undecided"),
        ("printed is None or printed >= MARGIN", "True", "a small printed gain is refuted"),
        ("not gain.one_seed and (sure.low", "(sure.low", "one seed decides"),
        ("sure.low > margin or", "sure.low > 0 or", "what may be equal is not"),
        ("of(sure >= share, 1 - lower < share)", "of(sure > share, 1 - lower < share)",
         "as many as asked for are too few"),
        ("1 - lower < share", "lower > 0", "one loss refutes"),
        ("lost == 0 and bool", "bool", "a loss is none"),
        ("10 * lost > len(cells)", "5 * lost > len(cells)", "a fifth for a tenth"),
        ("return max(verdicts", "return min(verdicts", "the strongest verdict counts"),
        ("< -0.5 and end is Verdict.REPRODUCED", "< -0.5", "no interval is asked for"),
        ("round(correlation, 9) < -0.5", "correlation < -0.5", "rounding decides"),
        ("share >= 0.75", "share > 0.75", "three of four are too few"),
        ("value.low > most, value.high", "value.estimate > most, value.high",
         "no interval is asked for"),
        ("cosine >= 0.9 and mean >= 0.5", "cosine >= 0.9", "a cosine alone"),
        ("stats.t.ppf(0.975", "stats.t.ppf(0.95", "an interval of 90%"),
        ("- flops[UNIMODAL]) / 2e9", "- flops[UNIMODAL]) / 1e9", "FLOPs for multiply-adds"),
        ('(gains["low"] > 0).all()', '(gains["low"] > 0).any()', "one metric is enough"),
        ("above(value, -claim.margin, ", "above(value, claim.margin, ", "not worse means better"),
        ("least = min(weakest", "least = max(weakest", "the largest gain is shown"),
        ("order[-1], order[0])", "order[0], order[-1])", "the last over the first"),
        ("names >= set(settings)", "names & set(settings)", "cells without a setting"),
        ("if len(there) < len(found)", "if not there", "missing runs are passed over"),
        ("if above(value) == verdict]", "]", "ours is not of the weakest verdict"),
    ],
    "companion/survival/model.py": [
        ("total / event.sum()", "total / len(event)", "the mean over all slides"),
        ('ties_method="efron"', 'ties_method="breslow"', "other ties"),
        ("torch.sigmoid(self.gate(hidden))", "torch.tanh(self.gate(hidden))", "another gate"),
        ("masked_fill(~mask", "masked_fill(mask", "padding is read"),
        ("constant_(self.fusion.weight, 0.5)", "constant_(self.fusion.weight, 1.0)",
         "fusion starts as the sum"),
        ("self.text(F.normalize(distilled, dim=-1), mask)", "self.text(distilled, mask)",
         "h_d(v) of any length"),
        ("time[None, :] > time[:, None]", "time[None, :] >= time[:, None]", "equal times compare"),
        ("<= TIED, 0.5,", "<= TIED, 0.0,", "equal risks count as wrong"),
        ("cases, controls = event * (time <= now) * weights",
         "cases, controls = event * (time <= now)", "no weights of censoring"),
        ("(time > now).astype(float)", "(time >= now).astype(float)", "cases are controls"),
        ("size=draws) / seeds", "size=draws) / 1", "sums over seeds"),
        ("_ratio(np.nansum(by_fold, axis=0), np.isfinite(by_fold).sum(axis=0))", "by_fold[0]",
         "the first fold"),
        ("censoring_weights(time[~inside], event[~inside]",
         "censoring_weights(time[inside], event[inside]", "weights of the slides predicted"),
        ("default_rng([seed, fold])", "default_rng([seed, 0])", "the same split in each fold"),
        ("np.flatnonzero(~held & kind)", "np.flatnonzero(kind)", "held-out slides choose"),
        ("max(round(share * len(rows)), 1)", "round(share * len(rows))",
         "a validation without an event"),
        ('self.weight * distance', "distance", "lambda ignored"),
        ("for kind in (event, ~event)", "for kind in (event | ~event,)", "not stratified"),
    ],
    "companion/survival/__init__.py": [
        ("[2.5, 97.5]", "[5, 95]", "intervals of 90%"),
        ('> by_fold.transform("size") / 2', '>= by_fold.transform("size") / 2',
         "the median is high"),
        ('frame.groupby("fold")["log_risk"].rank', 'frame["log_risk"].rank',
         "risks of different folds are compared"),
        ("log_risk[held] = risk.numpy()", "log_risk[held] = -risk.numpy()", "the sign of risks"),
        ("seeded(1000 * spec.seed + fold)", "seeded(fold)", "the same weights for each seed"),
        ("spec.training, spec.seed, stage", "spec.training, 0, stage", "batches without a seed"),
        ("value - means[over, metric]", "means[over, metric] - value", "losses for gains"),
        ("exclude_none=True", "exclude_none=False", "a new field renames every run"),
        ("spec.distillation_weight or 0.0", "1.0", "lambda ignored"),
        ("drawn[setting, metric]", "drawn[settings[0], metric]",
         "intervals of the first setting"),
    ],
    "companion/survival/cohort.py": [
        ("until_event <= until_censoring", "until_event > until_censoring",
         "events change places"),
        ("np.argsort(event[order], kind=\"stable\")", "np.arange(len(order))",
         "folds are not stratified"),
        ("np.log(2) / MEDIAN_MONTHS * np.exp(log_hazard)",
         "np.log(2) / MEDIAN_MONTHS * np.exp(-log_hazard)", "the sign of the hazard"),
        ("np.arange(most) * count // most", "np.arange(most)", "the first patches are kept"),
        ('number["time"].between(0,', 'number["time"].between(-9,', "times below zero"),
        ("len(values) != (count := len(arrays[FEATURES]))", "(count := len(arrays[FEATURES])) < 0",
         "embeddings of other patches"),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    file: str
    found: str
    put: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"

    def made(self, text: str) -> str:
        """The file with it.

        Raises:
            ValueError: its text is not found once; nothing would be changed, or too much.
        """
        if (count := text.count(self.found)) != 1:
            raise ValueError(f"{self}: {self.found!r} is found {count} times: anchor it anew")
        return text.replace(self.found, self.put)


class Prepared:
    """For pytest: encoders that were trained before any mistake, and the first test that fails."""

    def __init__(self, cache: Path) -> None:
        self.failed = ""

        @pytest.fixture(scope="session", autouse=True)
        def prepared(output_folder: Path) -> None:
            (output_folder / "cache").mkdir()
            (output_folder / "cache" / "encoders").symlink_to(cache / "encoders")

        self.prepared = prepared

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def copied(folder: Path) -> None:
    """The repository in a folder: what is small and may be changed as a copy, the rest as links."""
    for path in ROOT.iterdir():
        if path.name not in COPIED:
            (folder / path.name).symlink_to(path)
        elif path.is_file():
            shutil.copy2(path, folder)
        else:
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, folder / path.name, ignore=skipped)


def trained() -> Path:
    """The cache, with the encoders of the smallest profile in it."""
    from companion import paths
    from companion.profile import get_or_train, load_profile

    profile = load_profile("smoke")
    for name in profile.trained_encoders:
        get_or_train(name, profile)
    return paths.cache()


def tested(tests: Sequence[str], cache: Path, log: Path) -> str:
    """The first of some tests that fails, "" if none does; called in a child."""
    import jaxtyping
    from hypothesis import Phase, settings

    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        # Two seconds for each mistake: types are checked as modules are imported, failures shrunk.
        jaxtyping.install_import_hook = lambda *_: None  # type: ignore[assignment]
        brief = settings(phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
        settings.register_profile("brief", brief)
        settings.load_profile("brief")
        plugin = Prepared(cache)
        for name in tests:  # one after the other: nothing is collected that is not needed
            options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-m", "not alone"]
            options.append(f"tests/{name}")
            code = pytest.main(options, [plugin])
            if plugin.failed or code != pytest.ExitCode.OK:
                return plugin.failed or f"pytest ended with {code!r}"
    return ""


def in_a_child(call: Callable[..., Any], *values: Any) -> Any:
    """What a call returns in a process that has imported nothing of the method yet."""
    receive, send = multiprocessing.Pipe(duplex=False)
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: send.send(call(*values)))
    child.start()
    send.close()
    try:
        if receive.poll(LONGEST):
            return receive.recv()
        return f"no end within {LONGEST:g} s"
    except EOFError:
        return "the process ended"
    finally:
        child.kill()
        child.join()


def main(wanted: Sequence[str]) -> int:
    mistakes = [Mistake(file, *each) for file, listed in MISTAKES.items() for each in listed]
    changed = {each: each.made((ROOT / each.file).read_text("utf-8")) for each in mistakes}
    chosen = [each for each in mistakes if any(word in str(each) for word in wanted or [""])]
    with tempfile.TemporaryDirectory() as folder:
        copy, log = Path(folder, "copy"), Path(folder, "log")
        copy.mkdir()
        copied(copy)
        os.chdir(copy)
        sys.path[0] = str(copy)
        for name in ("clipit_lib", *SLOW):  # the library first: it holds the CPU's kernels
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        gc.freeze()  # what children share stays shared
        cache = in_a_child(trained)
        for file in dict.fromkeys(each.file for each in chosen):
            begin = time.monotonic()
            if failed := in_a_child(tested, TESTS[file], cache, log):
                print(log.read_text("utf-8"), f"{failed} fails without any mistake", sep="\n")
                return 2
            print(f"sound     {time.monotonic() - begin:6.1f} s  {file}", flush=True)
        survived: list[Mistake] = []
        for each in chosen:
            begin, path = time.monotonic(), copy / each.file
            path.write_text(changed[each], "utf-8")
            failed = in_a_child(tested, TESTS[each.file], cache, log)
            shutil.copy2(ROOT / each.file, path)
            survived += [] if failed else [each]
            verdict, seconds = "noticed " if failed else "SURVIVED", time.monotonic() - begin
            print(
                f"{verdict}  {seconds:6.1f} s  {each}  {failed.removeprefix('tests/')}", flush=True
            )
    made, left = (Counter(each.file for each in those) for those in (chosen, survived))
    for file, count in [*made.items(), ("all", len(chosen))]:
        missed = left[file] if file != "all" else len(survived)
        print(f"{file:36}{count:5} made{count - missed:5} noticed{missed:5} survived")
    for each in survived:
        print(f"survived: {each}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
