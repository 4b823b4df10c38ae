"""The command `push`: an exported classifier to the Hugging Face hub, once licences allow it."""

from __future__ import annotations

from argparse import Namespace

from clipit_lib.encoders import registry
from clipit_lib.encoders.weights import Published
from clipit_lib.errors import ClipItError
from companion.exported import Classifier, read_description
from companion.reading import agree


def main(given: Namespace) -> None:
    """Upload the folder as it is; what its licences are is said first.

    Raises:
        ClipItError: no exported classifier, a backbone that must not be passed on, licences that
            nobody accepted, or a hub that refuses.
    """
    folder, repository = given.folder, given.repository
    said = read_description(folder)
    backbone = registry.entry(said.network.name).weights
    print(f"weights of {said.network.name} ({said.network.origin}): {said.network.licence}")
    print(f"images of {said.dataset}: {said.licence}")
    if said.retriever:
        row = registry.entry(said.retriever).weights
        print(f"text features of {said.retriever} ({row.origin}): {row.licence}")
    if isinstance(backbone, Published) and backbone.gated:
        what = f"the terms of {said.network.name} forbid passing on what is derived from it"
        raise ClipItError(what, folder, f"Keep it to yourself; see {backbone.terms}")
    if not given.accept_licence:
        fix = "Add --accept-licence if they do"
        agree(
            f"Do these allow you to publish {folder} as {repository}?",
            ClipItError("nobody to say that the licences allow it", folder, fix),
            ClipItError("not allowed, not published", folder, "Nothing was done"),
        )
    classifier = Classifier(folder)
    try:
        print(classifier.push_to_hub(repository, private=given.private or None))
    except Exception as error:  # of the hub, of the network or of what the name should be
        reason = " ".join(str(error).split())[:200]
        fix = "Log in (`hf auth login`), and name OWNER/NAME that you may write"
        raise ClipItError(f"the hub refused it ({reason})", repository, fix) from error
