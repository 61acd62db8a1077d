"""Extending a ``README.md``: some keys of its front matter, a section between two markers, all else byte for byte.

``RepoCard`` of huggingface_hub writes the whole front matter anew, without its comments, its style and its empty keys.
So its classes give the data here, and where they go is found in the text.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import CardData

from hf_mambalrp.errors import CardError

BEGIN, END = "<!-- hf_mambalrp:begin -->", "<!-- hf_mambalrp:end -->"
FRONT_MATTER = re.compile(r"\A(\ufeff?\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|\Z))")
"""What the Hub takes for front matter."""


def card_text(content: bytes) -> str:
    """Text of a card, its line ends as they are. CardError: not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CardError(f"README.md is not UTF-8 ({error}). Save it as UTF-8 and push again.") from error


def metadata(card: str) -> dict[str, Any]:
    """The front matter; {} without one. CardError: not a YAML mapping."""
    match = FRONT_MATTER.match(card)
    try:
        found = yaml.safe_load(match[2]) if match else None
    except yaml.YAMLError as error:
        raise CardError(f"The front matter of README.md is not YAML: {error}. Mend it and push again.") from error
    if found is not None and not isinstance(found, dict):
        raise CardError(f"The front matter of README.md is a {type(found).__name__}; it must be a YAML mapping.")
    return found or {}


def listed(found: Mapping[str, Any], key: str) -> list[Any]:
    """What front matter lists under a key: [] without it, one text as a list of it. CardError: something else."""
    value = found.get(key)
    if isinstance(value, str):
        return [value]
    if value is not None and not isinstance(value, list):
        raise CardError(f"{key} in the front matter of README.md is a {type(value).__name__}; it must be a list.")
    return value or []


def with_data(card: str, data: CardData) -> str:
    """The card with what its front matter lacks of ``data``: keys that are there stay, and lists get what is new."""
    found, values = metadata(card), {}
    for key, value in data.to_dict().items():
        if isinstance(value, list):
            there = listed(found, key)
            values[key] = there + [one for one in value if one not in there]
        else:
            values[key] = found.get(key) or value
    return with_metadata(card, values)


def with_metadata(card: str, values: Mapping[str, Any]) -> str:
    """The card with these keys of its front matter set; lines of other keys, and of equal ones, stay as they are."""
    found = metadata(card)
    changed = {key: value for key, value in values.items() if key not in found or found[key] != value}
    if not changed:
        return card
    newline = _newline(card)
    match = FRONT_MATTER.match(card)
    if match is None:
        rest = newline + card.removeprefix("\ufeff") if card else ""  # inside a text the mark would be a character
        return f"---{newline}{_dump(changed, newline)}{newline}---{newline}{rest}"
    wanted = {**found, **changed}
    block = _edited(match[2], changed, newline)
    if not _reads_as(block, wanted):  # anchors, flow style: then the whole is written anew
        block = _dump(wanted, newline)
    return match[1] + block + match[3] + card[match.end() :]


def _edited(block: str, changed: Mapping[str, Any], newline: str) -> str:
    nodes = [(key, value) for key, value in getattr(yaml.compose(block), "value", []) if key.value in changed]
    for key, value in reversed(nodes):  # from the end, so that the marks before stay true
        text = _dump({key.value: changed[key.value]}, newline)
        block = block[: key.start_mark.index] + text + block[_last(value).end_mark.index :]
    added = {name: value for name, value in changed.items() if name not in {key.value for key, _ in nodes}}
    return newline.join(part for part in (block, _dump(added, newline) if added else "") if part)


def with_section(card: str, section: str) -> str:
    """The card with what stands between the markers replaced, or appended with the markers if there are none.

    CardError: markers that are not one beginning and one end after it.
    """
    newline = _newline(card)
    section = f"{BEGIN}\n{section.strip()}\n{END}".replace("\n", newline)
    place = _place(card)
    if place is not None:
        return card[: place.start - len(BEGIN)] + section + card[place.stop + len(END) :]
    ended = re.search(r"(\r?\n){0,2}\Z", card)
    missing = 2 - ended[0].count("\n") if card and ended else 0
    return card + newline * missing + section + newline


def section_of(card: str) -> str | None:
    r"""What stands between the markers, its lines ended by ``\n``; None without them. CardError: as above."""
    place = _place(card)
    return None if place is None else card[place.start : place.stop].replace("\r\n", "\n").strip()


def _place(card: str) -> slice | None:
    """Where the section is. Markers in the front matter, such as in a name there, are none."""
    front = FRONT_MATTER.match(card)
    body = front.end() if front else 0
    begins, ends = card.count(BEGIN, body), card.count(END, body)
    if (begins, ends) == (0, 0):
        return None
    place = slice(card.find(BEGIN, body) + len(BEGIN), card.find(END, body))
    if (begins, ends) != (1, 1) or place.stop < place.start:
        raise CardError(
            f"README.md has {begins} {BEGIN} and {ends} {END}; there must be one of each in this order, or none. Mend "
            "it and push again."
        )
    return place


def _newline(card: str) -> str:
    return "\r\n" if 2 * card.count("\r\n") > card.count("\n") else "\n"


def _dump(values: Mapping[str, Any], newline: str) -> str:
    # Unlike huggingface_hub's own, which writes an object of Python where a value is no plain one.
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10**6)
    return text.rstrip("\n").replace("\n", newline)


def _reads_as(block: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load(block) == wanted)
    except yaml.YAMLError:
        return False


def _last(node: Any) -> Any:
    """The last scalar of a block, whose end is exact; a block itself ends where the next token begins."""
    children = node.value if isinstance(node.value, list) and not getattr(node, "flow_style", False) else []
    if not children:
        return node
    return _last(children[-1][1] if isinstance(children[-1], tuple) else children[-1])
