"""Explanations as a dataset repository: shards of Parquet, and a card whose front matter the Hub's viewer reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.card import card_text, listed, metadata, with_data, with_section
from hf_mambalrp.hub.model_card import PICTURES
from hf_mambalrp.hub.repository import CARD, Token, hub_api, hub_errors, open_repository
from hf_mambalrp.viz.markdown import escaped, literal, picture, table

SHARD = "data/part-{:06d}.parquet"
DATA = "data/part-*.parquet"
NUMBERED = DATA.replace("*", "[0-9]" * 6)
"""What a push replaces: names that only ours have, for other programs write part-* as well."""
MANIFEST = "manifest.json"
SHOWN = PICTURES[0]
"""Where the card's picture is."""
TAGS = ("explainability", "mamba", "lrp", "hf_mambalrp")
DATA_FILES = [{"split": "train", "path": DATA}]
OF_TEXTS = [
    ("index, id, text", "the row that was explained"),
    ("tokens, offsets, input_ids, special", "its tokens, their characters in the text, and which are special"),
    ("relevance", "one number a token, in units of the score"),
    ("position", "whose prediction it is"),
]
OF_IMAGES = [
    ("index, id, image", "the row that was explained: its image as the model saw it, and the name of its file"),
    ("relevance", "rows and columns of patches, a number for each, in units of the score"),
    ("class_relevance", "a number for each class token, which is in no place of the image"),
    ("patch_size, stride", "pixels of a patch's side, and from one patch to the next"),
    ("gamma, gamma_on", "of the rule, and the operations that had it"),
    ("convergence_delta", "of a method with a baseline: the sum less the score's difference from it"),
]
OF_ALL = [
    ("target, target_text, contrast, contrast_text", "what the score is of: ids and texts"),
    ("score, probability", "the score in logits, and the target's probability"),
    ("conservation", "sum of relevance, what biases and a softmax absorbed, and the gap to the score"),
    ("method, method_options, model, versions", "how it was computed"),
    ("columns", "what else the row holds, as JSON"),
    ("error", "why a row was not explained, else null"),
]


@dataclass(frozen=True)
class Shards:
    """Rows of explanations in files of Parquet, and what the card says about them."""

    paths: Sequence[Path]
    rows: int
    skipped: int
    methods: Sequence[str]
    models: Sequence[str]
    of_images: bool
    shown: tuple[str, bytes] | None
    """A picture of one of them: what it says, and PNG."""


def push_shards(
    shards: Shards,
    repo_id: str,
    *,
    manifest: Path | None,
    private: bool | None,
    token: Token,
    revision: str | None,
    create_pr: bool,
    commit_message: str | None,
) -> Any:
    """Push shards in place of those of an earlier push; the manifest of the run that wrote them goes with them.

    :func:`hf_mambalrp.push_explanations` documents the other arguments, the result and the errors of the Hub.
    """
    repository = open_repository(repo_id, "dataset", private=private, token=token, revision=revision)
    card = _card(card_text(repository.read(CARD) or b""), repository.repo_id, shards)
    files: dict[str, bytes | Path] = {CARD: card.encode()}
    files |= {} if manifest is None else {MANIFEST: manifest}
    files |= {SHARD.format(number): path for number, path in enumerate(shards.paths)}
    files |= {} if shards.shown is None else {SHOWN: shards.shown[1]}
    message = commit_message or "Upload explanations with hf_mambalrp"
    return repository.commit(files, message, replaced=[NUMBERED, MANIFEST, SHOWN], create_pr=create_pr)


def fetch_shards(repo_id: str, *, revision: str | None, token: Token) -> list[Path]:
    """Download the shards of a dataset repository, those of one commit, in their order.

    Raises:
        MissingRepositoryError: no such repository, or a private one that the token does not reach.
        InputError: a repository without shards.
        OfflineError, HubConnectionError, HubError: of the Hub.
    """
    with hub_errors(repo_id, "dataset"):
        found = hub_api(token).snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns=[NUMBERED]
        )
    shards = sorted(Path(found).glob(NUMBERED))
    if not shards:
        raise InputError(f"The dataset repository {repo_id!r} holds no explanations: it has no {DATA}.")
    return shards


def _card(there: str, repo_id: str, shards: Shards) -> str:
    name = repo_id.rpartition("/")[2]
    part = "patch" if shards.of_images else "token"
    card = there or f"# {escaped(name)}\n\nExplanations of a Mamba model, {part} by {part}.\n"
    configs = listed(metadata(card), "configs")
    ours = next((one for one in configs if isinstance(one, dict) and DATA in str(one.get("data_files"))), None)
    if ours is None:  # beside configurations of other data, which stay
        ours = {"config_name": "explanations" if configs else "default", "data_files": DATA_FILES}
    card = with_data(card, DatasetCardData(tags=[*TAGS], configs=[ours]))
    return with_section(card, "\n\n".join(_section(repo_id, ours.get("config_name", "default"), shards)))


def _section(repo_id: str, config: str, shards: Shards) -> Iterator[str]:
    yield "## Explanations"
    yield table(
        ["Rows", "Not explained", "Method", "Model"],
        [
            [str(shards.rows), str(shards.skipped)]
            + [escaped(", ".join(names)) if names else "-" for names in (shards.methods, shards.models)]
        ],
    )
    if shards.shown is not None:
        yield picture(shards.shown[0], SHOWN)
    yield (
        "```python\nfrom hf_mambalrp import load_explanations\n\n"
        f"for explanation in load_explanations({literal(repo_id)}):\n    print(explanation)\n```"
    )
    asked = literal(repo_id) if config == "default" else f"{literal(repo_id)}, {literal(config)}"
    yield (
        f"As a table: `datasets.load_dataset({asked})`. A positive relevance speaks for the target, a negative one "
        "against it; relevance, what was absorbed and the gap of a row add up to its score."
    )
    held = [*(OF_IMAGES if shards.of_images else OF_TEXTS), *OF_ALL]
    yield table(["Columns", "What they hold"], held, numbers=False)
