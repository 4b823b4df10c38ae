"""Notebooks asked for in a wrong way."""

from __future__ import annotations

from pathlib import Path

from bad_input.case import PROFILES, Act, BadInput, World

NAMED = "notebook parameters"


def notebook(name: str, *parameters: str) -> Act:
    def act(world: World) -> list[str]:
        given = [part for each in parameters for part in ("--set", *each.split("=", 1))]
        return ["notebook", name, "--output", str(world.place / "out.ipynb"), *given]

    return act


def spoilt_profile(world: World) -> list[str]:
    return notebook("01_pairing", f"profile={Path(world.profile(seeds='x'))}")(world)


def leak(world: World) -> list[str]:
    """One's own data with a patient in two splits, where not every patient is known."""
    rows = [
        f"{split}/{name}/{number}.png,{name},{split},{split}{number}"
        for split, count in (("train", 8), ("validation", 4), ("test", 4))
        for name in ("calm", "wild")
        for number in range(count)
    ]
    rows[-1] = rows[-1].replace("test3", "train3")
    world.manifest("path,label,split,group", rows[0].replace("train0", ""), *rows[1:])
    return notebook("16_your_data", f"profile={world.place / 'bad.yaml'}")(world)


def leak_in_training(world: World) -> list[str]:
    leak(world)
    return ["train", "own", "--profile", str(world.place / "bad.yaml")]


CASES = [
    BadInput("a leak in own data", leak, "bad.yaml", "1 finding must be fixed first: patches: 1 "
             "groups are in several splits: train3", "Put every group into one split"),
    BadInput("a leak in training", leak_in_training, "data set patches",
             "group train3 is in several splits", "Put every group into one split"),
    BadInput("an unknown notebook", notebook("99_magic"), "99_magic", "unknown notebook '99_magic'",
             "Known: 00_doctor"),
    BadInput("a notebook by its file", notebook("../notebooks/01_pairing.ipynb"), "01_pairing",
             "unknown notebook", "Known: 00_doctor"),
    BadInput("an unknown parameter", notebook("01_pairing", "profile=smoke", "rank=2"), NAMED,
             "unknown parameter 'rank'", "Known: dataset"),
    BadInput("a parameter of another type", notebook("02_training", "profile=smoke", "seeds=two"),
             NAMED, "seeds is 'two' (str)", "Give seeds as list[int]"),
    BadInput("a seed twice", notebook("02_training", "profile=smoke", "seeds=[0, 0]"), NAMED,
             "seeds is [0, 0]", "Name each once"),
    BadInput("a number for a name", notebook("01_pairing", "profile=3"), NAMED,
             "profile is 3 (int)", "Give profile as str"),
    BadInput("a value that is not YAML", notebook("02_training", "seeds=[0"), "parameter seeds",
             "not YAML", "Fix it"),
    BadInput("a value that runs code",
             notebook("02_training", "seeds=!!python/object/apply:os.mkdir [ran]"),
             "parameter seeds", "not YAML", "Fix it"),
    BadInput("an unknown profile", notebook("01_pairing", "profile=none"), "profiles",
             "unknown profile 'none'", PROFILES),
    BadInput("a profile that is wrong", spoilt_profile, "bad.yaml", "seeds", "Fix this key"),
    BadInput("a profile that is not there", notebook("01_pairing", "profile=none.yaml"),
             "none.yaml", "no such file", "Name a YAML file"),
    BadInput("a place that cannot be written",
             lambda w: ["notebook", "01_pairing", "--output", str(w.file("file", "") / "a.ipynb")],
             "file", "cannot write here", "Give write permission"),
]  # fmt: skip
