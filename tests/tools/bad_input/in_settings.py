"""Profiles that are wrong."""

from __future__ import annotations

from math import inf, nan

from bad_input.case import PROFILES, Act, BadInput, World

FIX = "Fix this key"


def text(content: str | bytes) -> Act:
    """A profile that is this text."""

    def act(world: World) -> list[str]:
        return ["plan", "--profile", str(world.file("bad.yaml", content))]

    return act


def study(name: str, **study: list[str]) -> Act:
    return lambda world: world.plan(studies={name: study})


CASES = [
    BadInput("unknown key", lambda w: w.plan(sedes=[0]), "bad.yaml", "sedes", FIX),
    BadInput("wrong type", lambda w: w.plan(seeds="many"), "bad.yaml", "seeds", FIX),
    BadInput("rank of nothing", lambda w: w.plan(lora={"rank": 0}), "bad.yaml", "lora.rank", FIX),
    BadInput("negative epochs", lambda w: w.plan(training={"epochs": -1}), "bad.yaml",
             "training.epochs", FIX),
    BadInput("unknown backbone", lambda w: w.train(backbones=["resnet"]), "encoders",
             "unknown backbone 'resnet'", "Known: "),
    BadInput("unknown retriever", lambda w: w.train(retriever="clap"), "encoders",
             "unknown retriever 'clap'", "Known: "),
    BadInput("unknown corpus", lambda w: w.data(corpus="nothing"), "profile mine",
             "unknown corpus 'nothing'", "Known: reports"),
    BadInput("unknown study", study("table9"), "profile mine", "unknown study 'table9'", "Known: "),
    BadInput("unknown setting", study("own", settings=["clip_it/magic"]), "mine",
             "unknown setting 'clip_it/magic'", "Known: "),
    BadInput("setting without a number", study("own", settings=["clip_it/lora_rank_x"]), "mine",
             "cannot read 'lora_rank_x'", "Write lora_rank_VALUE"),
    BadInput("study of another data set", study("own", datasets=["theirs"]), "mine",
             "unknown dataset 'theirs'", "Known: patches"),
    BadInput("a list", text("- name: mine\n"), "bad.yaml", "the whole file", FIX),
    BadInput("a seed twice", lambda w: w.train(seeds=[0, 0]), "bad.yaml", "seeds: 0 is given twice",
             FIX),
    BadInput("nothing", text(""), "bad.yaml", "the whole file", FIX),
    BadInput("no YAML", text("name: [mine\n"), "bad.yaml", "not YAML", "Fix it"),
    BadInput("a key twice", text("name: mine\nseeds: [0]\nseeds: [1]\n"), "bad.yaml",
             "seeds is given twice", "Fix it"),
    BadInput("not UTF-8", text("summary: größe".encode("latin-1")), "bad.yaml", "not UTF-8",
             "Save it as UTF-8"),
    BadInput("YAML that runs code", text("name: !!python/object/apply:os.mkdir [ran]\n"),
             "bad.yaml", "not YAML", "Fix it"),
    BadInput("a name that leads away", lambda w: w.plan(name="../away"), "bad.yaml",
             "'../away' cannot name a folder", "Use letters"),
    BadInput("a name that is taken", lambda w: w.plan(name="demo"), "bad.yaml",
             "'demo' is that of a profile which comes with", "Choose another"),
    BadInput("no such file", lambda w: ["plan", "--profile", str(w.place / "none.yaml")],
             "none.yaml", "no such file", "Name a YAML file"),
    BadInput("no such name", lambda w: ["plan", "--profile", "demmo"], "profiles",
             "unknown profile 'demmo'", PROFILES),
    BadInput("a name with a folder in it", lambda w: ["plan", "--profile", "../profiles/demo"],
             "profiles", "unknown profile '../profiles/demo'", PROFILES),
    BadInput("a negative learning rate", lambda w: w.plan(training={"learning_rate": -0.1}),
             "bad.yaml", "training.learning_rate", FIX),
    BadInput("a learning rate that is no number", lambda w: w.plan(probe={"learning_rate": nan}),
             "bad.yaml", "probe.learning_rate", FIX),
    BadInput("an infinite weight", lambda w: w.plan(distillation_weight=inf), "bad.yaml",
             "distillation_weight", FIX),
    BadInput("a negative seed", lambda w: w.plan(seeds=[-1]), "bad.yaml", "seeds: Input", FIX),
    BadInput("no seed", lambda w: w.plan(seeds=[]), "bad.yaml", "seeds", FIX),
    BadInput("no backbone", lambda w: w.plan(backbones=[]), "bad.yaml", "backbones", FIX),
    BadInput("no data set", lambda w: w.plan(data={}), "bad.yaml", "data", FIX),
    BadInput("a data set whose name leads away", lambda w: w.plan(data={"../away":
             w.values["data"]["patches"]}), "bad.yaml", "'../away' cannot name a folder",
             "Use letters"),
    BadInput("training of another data set", lambda w: w.plan(training_for={"theirs": {}}),
             "bad.yaml", "unknown dataset 'theirs'", "Known: patches"),
    BadInput("a list within itself", text("summary: &a [*a]\n"), "bad.yaml", "not YAML", "Fix it"),
    BadInput("a setting out of range", lambda w: w.setting("clip_it/label_noise_200"), "mine",
             "'clip_it/label_noise_200'", "Write"),
    BadInput("a setting of no labels", lambda w: w.setting("clip_it/labels_0"), "mine",
             "'clip_it/labels_0'", "Write"),
    BadInput("a setting of negative weight", lambda w: w.setting("clip_it/lambda_-1"), "mine",
             "'clip_it/lambda_-1'", "Write"),
    BadInput("a setting of an unknown protocol", lambda w: w.setting("clip_it/protocol_papre"),
             "mine", "unknown protocol 'papre'", "Known: paper, released"),
    BadInput("a setting of an unknown way to read", lambda w: w.setting("clip_it/long_text_cut"),
             "mine", "'clip_it/long_text_cut'", "Write"),
    BadInput("a setting of an unknown retriever", lambda w: w.setting("clip_it/retriever_clap"),
             "encoders", "unknown retriever 'clap'", "Known: "),
]  # fmt: skip
