"""Plot what gpu.py measured: milliseconds and peak memory over the length, one column a model, for single rows.

python examples/benchmarks/plot.py run.json                                     # examples/images/gpu.png
python examples/benchmarks/plot.py run.json --dtype float32 --output float32.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

METHODS = {
    "HF forward": ("HF forward", "#6b7280", "s", "-"),
    "HF forward, last logit": ("HF forward, last logit only", "#6b7280", "s", ":"),
    "HF gradient x input": ("HF gradient x input", "#c2410c", "^", "-"),
    "HF gradient x input, frozen": ("HF gradient x input, frozen weights", "#c2410c", "^", ":"),
    "explain()": ("explain() of this package", "#1d4ed8", "o", "-"),
}
"""Method of gpu.py: label, colour, marker, line."""

QUANTITIES = {"ms": "milliseconds", "peak_gib": "peak GiB above the weights"}
NAMES = {
    "mamba-130m": "Mamba 130M",
    "mamba-1.4b": "Mamba 1.4B",
    "mamba-2.8b": "Mamba 2.8B",
    "mamba2-130m": "Mamba-2 130M",
}
INK, FAINT = "#1f2937", "#d1d5db"


def panel(axes: Axes, rows: list[dict[str, Any]], quantity: str) -> None:
    """One quantity of one model; a cross at the top edge is a length that did not fit in memory."""
    lengths = sorted({row["length"] for row in rows})
    for name, (label, colour, marker, line) in METHODS.items():
        own = sorted((row for row in rows if row["method"] == name), key=lambda row: row["length"])
        points = [(row["length"], row[quantity]) for row in own if row["status"] == "ok" and row[quantity]]
        width = 2.4 if name == "explain()" else 1.6
        style = {"color": colour, "marker": marker, "markersize": 4.5, "linestyle": line, "linewidth": width}
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, **style, zorder=3 + width)
        full = [row["length"] for row in own if row["status"] == "out of memory"]
        if full:
            # In a row below the top edge for each method, so that none hides another.
            height = 0.97 - 0.045 * list(METHODS).index(name)
            transform = axes.get_xaxis_transform()
            axes.plot(full, [height] * len(full), "x", color=colour, markersize=6, transform=transform, clip_on=False)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(lengths, [tokens(length) for length in lengths], fontsize=8, rotation=35)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if any(row["status"] == "out of memory" for row in rows):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.3)  # room for the crosses
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def tokens(length: int) -> str:
    """512, 8k, 1M."""
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if length >= size:
            return f"{length / size:g}{unit}"
    return str(length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="written by gpu.py --json")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "images" / "gpu.png")
    parser.add_argument("--dtype", help="default: the first in the file")
    parser.add_argument("--models", nargs="+", help="default: all in the file")
    arguments = parser.parse_args()

    run = json.loads(arguments.json.read_text())
    dtype = arguments.dtype or run["rows"][0]["dtype"]
    rows = [row for row in run["rows"] if row["dtype"] == dtype and row["batch"] == 1]
    models = arguments.models or list(dict.fromkeys(row["model"] for row in rows))
    # The processor has no peak memory in the file.
    quantities = [q for q in QUANTITIES if any(row.get(q) for row in rows)]
    # A white page of its own, so that it reads the same on a light and on a dark one.
    plt.rcParams |= {"text.color": INK, "axes.labelcolor": INK, "figure.facecolor": "white", "axes.facecolor": "white"}
    size = (max(6.4, 3.3 * len(models)), 0.9 + 2.8 * len(quantities))
    figure, grid = plt.subplots(len(quantities), len(models), figsize=size, squeeze=False, layout="constrained")
    for down, quantity in enumerate(quantities):
        for across, model in enumerate(models):
            axes = grid[down][across]
            panel(axes, [row for row in rows if row["model"] == model], quantity)
            if down == 0:
                axes.set_title(NAMES.get(model, model), fontsize=10, fontweight="bold")
            if across == 0:
                axes.set_ylabel(QUANTITIES[quantity], fontsize=9)
            if down == len(quantities) - 1:
                axes.set_xlabel("tokens", fontsize=9)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in run["versions"] if run["versions"][name])
    note = f"{run['device']}, {dtype}, one row, random weights; x: out of memory. {versions}, {run['date']}"
    figure.supxlabel(note, fontsize=7.5, color="#4b5563")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=130, bbox_inches="tight")
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
