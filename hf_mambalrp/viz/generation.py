"""Generated tokens as HTML: a text in which each of them, or several, light up what spoke for and against them.

A script of this package, and none other, adds up the numbers of what is chosen; they stand in the page as float32 in
base 64, and names are taken from the text, so that nothing untrusted is ever read as code or markup. Without a script
the page shows the sum over all tokens, and each of them in the heat map.
"""

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from hf_mambalrp.viz.colors import MAX_ALPHA
from hf_mambalrp.viz.document import GeneratedToken, Steps
from hf_mambalrp.viz.markup import LAID_OUT, balance, escaped, heat, mark, side, table, tint
from hf_mambalrp.viz.wording import label
from hf_mambalrp.viz.words import Word

SCRIPT = (Path(__file__).parent / "generation.js").read_text(encoding="utf-8").replace("MAX_ALPHA", str(MAX_ALPHA))
SCRIPT_HASH = "sha256-" + b64encode(sha256(SCRIPT.encode()).digest()).decode()
"""What a page's policy allows."""
STRONGEST = 8
"""Words in the table."""
MOST_SENTENCES = 12
"""Sentences with a button."""
HOW = (
    "Point at a generated token, tap it or go by Tab and the arrow keys: what spoke for it and against it lights up. "
    "Several together: drag, hold Shift, or press “Up to the next one”."
)


def steps(block: Steps) -> str:
    """Write the generated tokens of a row."""
    if not block.steps:
        return '<p class="note">Nothing was generated.</p>'
    pieces = []
    for number, (before, shown, word) in enumerate(block.words.laid_out()):
        t = number - block.prompt
        piece = mark(word, shown, block.words) if t < 0 else _option(block, t, shown, word)
        pieces.append((escaped(before, keep=LAID_OUT), piece))
    prompt = "".join(before + piece for before, piece in pieces[: block.prompt])
    written = "".join(
        (before if t else before.lstrip(" ")) + piece for t, (before, piece) in enumerate(pieces[block.prompt :])
    )
    whole = block.whole
    return (
        f'<div class="generation" data-values="{_numbers(block)}" data-terms="{escaped(_terms(block))}"><div>'
        f'<p class="name">The prompt</p><div class="text before" role="region" aria-label="The prompt" tabindex="0" '
        f'lang="" dir="auto">{prompt}</div><p class="name">What was generated</p>'
        '<div class="text written" role="listbox" aria-multiselectable="true" aria-label="Generated tokens" lang="" '
        f'dir="auto">{written}</div>{_choices(block)}'
        f'<p class="note live">{HOW}</p><p class="note still">Shown is the sum over all generated tokens; the map has '
        f'each of them.</p><div class="said" aria-live="polite"><p class="asked">{_asked(block, whole)}</p>'
        f'{balance(whole.balance)}</div><div class="sums">{table(block.words.table(STRONGEST))}</div></div>'
        f"<div>{heat(block.heat)}</div></div>"
    )


def _option(block: Steps, t: int, shown: str, word: Word) -> str:
    name = f"“{label(block.steps[t].token)}”: {block.steps[t].numbers}"
    look = f' style="{tint(word.relevance, block.words.peak)}"' if word.relevance else ""
    return (
        f'<span class="w {side(word.relevance)}"{look} role="option" aria-selected="true" tabindex="{-1 if t else 0}" '
        f'title="{escaped(name)}" aria-label="{escaped(name)}">{escaped(shown)}</span>'
    )


def _choices(block: Steps) -> str:
    """What chooses several at once; of one token there is nothing to choose."""
    if len(block.steps) < 2:
        return ""
    parts = block.sentences if 1 < len(block.sentences) <= MOST_SENTENCES else []
    of_parts = "".join(
        f'<button type="button" data-from="{part.start}" data-to="{part.stop}">Sentence {number}</button>'
        for number, part in enumerate(parts, 1)
    )
    return (
        '<div class="choices live" role="group" aria-label="Several tokens together">'
        f'<button type="button" data-from="0" data-to="{len(block.steps)}">All {len(block.steps)} tokens</button>'
        f'{of_parts}<button type="button" class="up-to" aria-pressed="false">Up to the next one</button></div>'
    )


def _asked(block: Steps, whole: GeneratedToken) -> str:
    count = len(block.steps)
    return escaped(f"Why all {count} tokens?" if count > 1 else f"“{label(whole.token)}”: {whole.numbers}")


def _numbers(block: Steps) -> str:
    return b64encode(block.values.float().contiguous().numpy().astype("<f4").tobytes()).decode()


def _terms(block: Steps) -> str:
    """The scores and what they are the sums of, as JSON; float32 has nine digits at most."""
    named = {"score": block.scores, **block.terms}
    return json.dumps({name: [float(f"{value:.9g}") for value in values] for name, values in named.items()})
