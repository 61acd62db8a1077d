"""How far back does a model read? Where its ten most relevant tokens lie, for two families and for models without need.

A needle, the token behind <key>, lies at a random place of a sequence, and the model is asked for it at the end. Rezaei
Jafari et al. (2024, section 6) asked of a language model how far its ten most relevant tokens are from its answer; here
it is known how far they should be. Beside it the same model before its training, which has learned to remember nothing.

    python examples/audit/long_range.py --output out/long_range
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from matplotlib import pyplot as plt

from hf_mambalrp import make_explainable
from hf_mambalrp.evaluation.tasks import needle

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from task_models import build_model, logits_at

VOCABULARY, TOP, HELD_OUT = 20, 10, 2**40


def trained(model, steps, longest):
    """Fresh sequences in every step, short ones first."""
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 6e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps, pct_start=0.1)
    for step in range(steps):
        reach = 4 + round(min(1.0, 0.1 + step / (0.4 * steps)) * (longest - 4))
        batch = needle(64, int(torch.randint(4, reach + 1, (), generator=draw)), VOCABULARY, step)
        logits = logits_at(model, batch.input_ids, batch.positions)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def asked(model, length, count):
    """Accuracy; distances of the ten most relevant tokens; shares of needles among the ten, by tenths of the length."""
    batch = needle(count, length, VOCABULARY, HELD_OUT)
    ids, places = batch.input_ids[:, :length], batch.evidence[:, 0].int().argmax(1)
    found = make_explainable(model.eval()).explain(ids, target=batch.targets[:, 0])
    top = found.relevance.topk(TOP, 1).indices
    hit = (top == places[:, None]).any(1)
    tenths = (length - 1 - places) * 10 // length
    by_tenth = [hit[tenths == tenth].double().mean().item() for tenth in range(10)]
    with torch.no_grad():
        right = (logits_at(model, batch.input_ids, batch.positions).argmax(-1) == batch.targets).double().mean().item()
    return right, (length - 1 - top).flatten(), by_tenth


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", type=Path, default=Path("out/long_range"))
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--length", type=int, default=64)
parser.add_argument("--sequences", type=int, default=500, help="that are explained")
arguments = parser.parse_args()
torch.set_num_threads(1)
arguments.output.mkdir(parents=True, exist_ok=True)

figures = {}
figure, axes = plt.subplots(2, 2, figsize=(8, 5), layout="constrained", sharex="row", sharey="row")
for column, family in enumerate(("mamba", "mamba2")):
    torch.manual_seed(0)
    model = build_model(family, VOCABULARY, 48, 2)
    for name, color in {"untrained": "#9aa5b1", "trained": "#2166ac"}.items():
        if name == "trained":
            trained(model, arguments.steps, arguments.length)
        right, distances, by_tenth = asked(model, arguments.length, arguments.sequences)
        quartiles = [int(distances.double().quantile(part)) for part in (0.25, 0.5, 0.75)]
        print(
            f"{family}, {name}: {right:.1%} right; ten most relevant tokens {quartiles[1]} before the end (half are "
            f"{quartiles[0]} to {quartiles[2]}); the needle is among them in {sum(by_tenth) / 10:.0%}"
        )
        figures[f"{family}, {name}"] = {"right": right, "quartiles": quartiles, "needle by tenth": by_tenth}
        axes[0, column].hist(
            distances, bins=range(0, arguments.length + 4, 4), histtype="step", color=color, label=name
        )
        axes[1, column].plot(range(10), by_tenth, "o-", color=color, markersize=4)
    axes[0, column].set_title(family, loc="left", fontsize=10)
    axes[0, column].set_xlabel("distance of the ten most relevant tokens from the end", fontsize=8)
    axes[1, column].set_xlabel("distance of the needle, tenths of the length", fontsize=8)
    axes[1, column].axhline(TOP / arguments.length, color="#59636e", linewidth=0.7, linestyle="--")
axes[0, 0].set_ylabel("tokens", fontsize=8)
axes[1, 0].set_ylabel("needle among the ten", fontsize=8)
axes[0, 0].legend(frameon=False, fontsize=8)
for ax in axes.flat:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
figure.savefig(arguments.output / "long_range.png", dpi=120)
(arguments.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
print(f"written: {arguments.output / 'long_range.png'}")
