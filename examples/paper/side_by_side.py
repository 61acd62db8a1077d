"""Our numbers beside the published ones: one report of every table that was made under a folder.

    python examples/paper/side_by_side.py out/paper
    python examples/paper/side_by_side.py out/paper --tasks examples/evaluation/results/tasks.json     # and copying

``published.json`` has the papers' numbers, with where we have them from. The report: ``side_by_side.html`` and ``.md``.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_mambalrp.evaluation import report_html, report_markdown
from hf_mambalrp.evaluation.report_parts import Chapter, Findings, decimals_for, fixed, with_interval
from hf_mambalrp.viz.document import Facts, Grid
from hf_mambalrp.viz.method_names import method_name

PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
NAME = "table.json"
Rows = Mapping[str, Mapping[str, Any]]
"""By method and column a mean with the ends of its interval, or without them."""
ENDS = ("mean", "low", "high")
OVER_EXAMPLES, OVER_SEEDS = "a 95% bootstrap interval over examples", "the range over the models of these seeds"
"""What the ends are."""


def write_table(
    folder: Path, table: str, about: Mapping[str, Any], rows: Rows, steps: Mapping[str, Rows] | None = None
) -> None:
    """Keep a finished table, and write its report beside it; ``steps`` are further tables of ours, by their caption."""
    columns = PUBLISHED[table]["columns"]
    kept = {
        method: {column: {end: row[column][end] for end in ENDS if end in row[column]} for column in columns}
        for method, row in rows.items()
    }
    content = {"table": table, "about": dict(about), "rows": kept, "steps": steps}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_report(folder, [content])


def tables_under(folder: Path) -> list[dict[str, Any]]:
    """The tables that were made, in the order of ``published.json``."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob(NAME))]
    return sorted(found, key=lambda content: list(PUBLISHED).index(content["table"]))


def tables_of_tasks(path: Path) -> list[dict[str, Any]]:
    """The tables of copying among what ``examples/evaluation/tasks.py`` wrote: over the seeds of its models."""
    results = json.loads(path.read_text(encoding="utf-8"))
    tables = []
    for name in PUBLISHED:
        for size, rows in results["over seeds"].get(name, {}).items():
            seeds = len(next(iter(rows.values()))["roc_auc"]["seeds"])
            about = {"Sequences": results["settings"]["sequences"], "Of": size, "Seeds": seeds}
            tables.append({"table": name, "about": about, "rows": rows, "ends": OVER_SEEDS})
    return tables


def write_report(folder: Path, tables: list[dict[str, Any]]) -> None:
    title = "Beside the published numbers"
    chapters = [chapter(**content) for content in tables]
    (folder / "side_by_side.html").write_text(report_html.page(title, chapters), encoding="utf-8")
    (folder / "side_by_side.md").write_text(report_markdown.page(title, chapters), encoding="utf-8")


def chapter(
    table: str,
    about: Mapping[str, Any],
    rows: Rows,
    steps: Mapping[str, Rows] | None = None,
    ends: str = OVER_EXAMPLES,
) -> Chapter:
    """One table: our methods in their order, then what is published and was not run here. Of steps the means alone."""
    paper = PUBLISHED[table]
    published, scale = paper["rows"], 100 if paper.get("percent") else 1
    methods = [*rows, *(name for name in published if name not in rows)]
    head, columns = ["Method"], []
    for key, symbol in paper["columns"].items():
        ours = {method: {end: scale * row[key][end] for end in ENDS if end in row[key]} for method, row in rows.items()}
        head.append(f"{symbol}\nhere")
        columns.append([shown(ours[name], list(ours.values())) if name in ours else "–" for name in methods])
        theirs = {name: row[key] for name, row in published.items() if key in row}
        if theirs:
            head.append(f"{symbol}\npublished")
            columns.append([theirs.get(name, "–") for name in methods])
    names = [method_name(name) for name in methods]
    unit = ", in percent" if scale == 100 else ""
    facts = Facts(tuple((name, str(value)) for name, value in about.items()))
    reading = f"Published by {paper['source']}. Here: the mean, with {ends}."
    tables = [Grid(f"Here and published{unit}", tuple(head), list(zip(names, *columns, strict=True)))]
    for name, of in (steps or {}).items():
        lines = [
            (method_name(key), *(fixed(scale * stat["mean"], 1) for stat in row.values())) for key, row in of.items()
        ]
        tables.append(Grid(f"{name}{unit}", ("Method", *next(iter(of.values()))), lines))
    return Chapter(paper["title"], reading, [*tables, facts, Findings(paper["notes"])])


def shown(stat: dict[str, float], column: list[dict[str, float]]) -> str:
    """A mean, with its interval where it has one, to as many decimals as the column."""
    return with_interval(stat, decimals_for(column)) if "low" in stat else fixed(stat["mean"], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the outputs of the other scripts lie in it")
    parser.add_argument("--tasks", type=Path, help="JSON of examples/evaluation/tasks.py")
    arguments = parser.parse_args()

    tables = tables_under(arguments.folder) + (tables_of_tasks(arguments.tasks) if arguments.tasks else [])
    if not tables:
        parser.error(
            f"{arguments.folder} has no {NAME} of a finished table. Run text.py, images.py, arc.py or alignment.py "
            "first."
        )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_report(arguments.folder, tables)
    print(f"{len(tables)} tables: {', '.join(PUBLISHED[content['table']]['title'] for content in tables)}")
    print(f"written: {arguments.folder}/side_by_side.html")


if __name__ == "__main__":
    main()
