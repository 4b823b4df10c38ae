"""Profiles that are wrong."""

from __future__ import annotations

from bad_input.case import Act, BadInput, World

MEND = "Mend this key"


def text(content: str | bytes) -> Act:
    """A profile that is this text."""

    def act(world: World) -> list[str]:
        return ["plan", "--profile", str(world.file("bad.yaml", content))]

    return act


def study(name: str, **study: list[str]) -> Act:
    return lambda world: world.plan(studies={name: study})


CASES = [
    BadInput("unknown key", lambda w: w.plan(sedes=[0]), "bad.yaml", "sedes", MEND),
    BadInput("wrong type", lambda w: w.plan(seeds="many"), "bad.yaml", "seeds", MEND),
    BadInput("rank of nothing", lambda w: w.plan(lora={"rank": 0}), "bad.yaml", "lora.rank", MEND),
    BadInput("negative epochs", lambda w: w.plan(training={"epochs": -1}), "bad.yaml",
             "training.epochs", MEND),
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
    BadInput("a list", text("- name: mine\n"), "bad.yaml", "the whole file", MEND),
    BadInput("nothing", text(""), "bad.yaml", "the whole file", MEND),
    BadInput("no YAML", text("name: [mine\n"), "bad.yaml", "not YAML", "Mend it"),
    BadInput("a key twice", text("name: mine\nseeds: [0]\nseeds: [1]\n"), "bad.yaml",
             "seeds is given twice", "Mend it"),
    BadInput("not UTF-8", text("summary: größe".encode("latin-1")), "bad.yaml", "not UTF-8",
             "Save it as UTF-8"),
    BadInput("YAML that runs code", text("name: !!python/object/apply:os.mkdir [ran]\n"),
             "bad.yaml", "not YAML", "Mend it"),
    BadInput("a name that leads away", lambda w: w.plan(name="../away"), "bad.yaml",
             "'../away' cannot name a folder", "Use letters"),
    BadInput("a name that is taken", lambda w: w.plan(name="demo"), "bad.yaml",
             "'demo' is that of a profile which comes with", "Choose another"),
    BadInput("no such file", lambda w: ["plan", "--profile", str(w.place / "none.yaml")],
             "none.yaml", "no such file", "Name a YAML file"),
    BadInput("no such name", lambda w: ["plan", "--profile", "demmo"], "profiles",
             "unknown profile 'demmo'", "Known: demo"),
]  # fmt: skip
