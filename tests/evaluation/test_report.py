"""The report: numbers where they belong, marks that follow from the values, inert and complete HTML and Markdown."""

import json
import re
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest

from hf_mambalrp.errors import MissingExtraError
from hf_mambalrp.evaluation.report import plot, to_html, to_markdown
from hf_mambalrp.evaluation.report_parts import decimals_for, fixed, number, readable, tables_of
from hf_mambalrp.viz.colors import LIGHT

mpl.use("Agg")

QUALITY = {
    "mambalrp": 1.0, "lrp_ln": 0.45, "gradient_x_input": 0.1, "integrated_gradients": 0.35, "smoothgrad": 0.05,
    "attention_rollout": 0.2, "mamba_attribution": 0.55, "latim": 0.97, "random": 0.0,
}  # fmt: skip
"""Method, and how faithful the made-up numbers make it."""
METRICS = ("delta_flip", "delta_insert", "comprehensiveness", "sufficiency")
GRID = [i / 20 for i in range(21)]
HOSTILE = "</p><script>alert(1)</script>|`*_[x](y)$\\frac$\x1b\u202e"
VOID = {"meta", "br"}


def stat(values):
    """Mean and percentile interval by a slow bootstrap."""
    rng = np.random.default_rng(1)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(300)]
    return {"mean": values.mean(), "low": np.quantile(means, 0.025), "high": np.quantile(means, 0.975)}


def results(values=None, count=30, names=None, **extra):
    """What evaluate_faithfulness returns; ``values`` gives every metric of a method per example."""
    rng = np.random.default_rng(0)
    scores = rng.normal(3.2, 1.3, count)
    if values is None:
        values = {
            name: {
                "delta_flip": 2.4 * quality + rng.normal(0, 0.4, count),
                "delta_insert": 2.1 * quality + rng.normal(0, 0.5, count),
                "comprehensiveness": 0.1 + 0.35 * quality + rng.normal(0, 0.06, count),
                "sufficiency": 0.3 - 0.27 * quality + rng.normal(0, 0.05, count),
            }
            for name, quality in QUALITY.items()
            if names is None or name in names
        }
    first, *others = values
    methods = {}
    for name, found in values.items():
        fast, slow = ([3.2 - 4.2 * x**power for x in GRID] for power in (0.4, 2.5))
        morf, lerf = (slow, fast) if name == "random" else (fast, slow)
        curves = {"flip_morf": morf, "flip_lerf": lerf, "insert_morf": lerf[::-1], "insert_lerf": morf[::-1]}
        relevance = scores - 0.25 if name == "mambalrp" else scores * rng.normal(0.5, 0.8, count)
        methods[name] = {
            **{metric: {**stat(found[metric]), "values": found[metric].tolist()} for metric in METRICS},
            "curves": {"fractions": GRID, **curves},
            "conservation": {
                "score": scores.tolist(), "relevance": relevance.tolist(), "biases": [0.25] * count,
                "median_ratio": float(np.median(relevance / scores)),
            },
        }  # fmt: skip
    found = {
        "model": "hf_mambalrp/demo",
        "versions": {"hf_mambalrp": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "settings": {
            "methods": list(values), "method_options": {"integrated_gradients": {"steps": 53, "baseline": "zero"}},
            "measure": "logit", "replacement": "'<unk>' (id 7)", "insertion": "remove", "step": 0.05, "target": None,
            "samples": count, "confidence": 0.95, "resamples": 1234, "seed": 42,
        },
        "examples": [
            {"id": i, "tokens": 12 + i % 19, "target": ["negative", "positive"][i % 3 > 0], "score": scores[i],
             "probability": 1 / (1 + np.exp(-scores[i]))} for i in range(count)
        ],
        "methods": methods,
        "differences": {
            metric: {other: stat(values[first][metric] - values[other][metric]) for other in others}
            for metric in METRICS
        },
        "agreement": {
            "methods": list(values),
            "spearman": [[round(0.9 ** abs(i - j) - 0.3 * (i != j), 3) for j in range(len(values))]
                         for i in range(len(values))],
        },
        **extra,
    }  # fmt: skip
    return json.loads(json.dumps(found))


def same(**offsets):
    """Values of methods that are one noisy column plus an offset, and for ``noise`` an alternating one."""
    base, sign = np.random.default_rng(3).normal(0, 2, 30), np.tile([1.0, -1.0], 15)
    columns = {name: base + (0.5 * sign if name == "noisy" else 0) + offset for name, offset in offsets.items()}
    return {name: {**dict.fromkeys(METRICS, column), "sufficiency": -column} for name, column in columns.items()}


def markdown_table(text, caption):
    """Rows by their first cell; a cell is its lines, joined by spaces, without what makes it bold."""
    block = text.split(f"**{caption}**\n\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
    plain = [[re.sub(r"\*\*|\\|</?sup>", "", cell.replace("<br>", " ")) for cell in row] for row in rows]
    return {first: rest for first, *rest in plain}


class Page(HTMLParser):
    """Checks that tags nest; collects elements, the text, and tables by the heading above them."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text, self.tables, self.heading = [], [], "", {}, ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h3":
            self.heading = ""
        if tag == "table":
            self.tables[self.heading] = []
        if tag == "tr":
            self.tables[self.heading].append([])
        if tag in ("td", "th"):
            self.tables[self.heading][-1].append([])

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "h3" in self.open:
            self.heading += data
        if "td" in self.open or "th" in self.open:
            self.tables[self.heading][-1][-1].append(data)

    def table(self, heading):
        """Rows by their first cell; a cell is its texts, joined by spaces."""
        rows = [[" ".join(cell) for cell in row] for row in self.tables[heading]]
        return {first: rest for first, *rest in rows}


@pytest.fixture(scope="module")
def everything():
    return results(
        sanity={"determinism": {"mambalrp": {"bitwise": True, "change": 2e-8}}, "seed": 0},
        localisation={"copying": {"mambalrp": {"roc_auc": 0.93, "recall_at_k": 0.5}}},
        plausibility={"mambalrp": {"spearman": {"mean": 0.41, "low": 0.36, "high": 0.47}}},
    )


@pytest.fixture(scope="module")
def source(everything):
    return to_html(everything)


def test_sections_settings_and_optional_parts(everything, source):
    page, markdown = Page(source), to_markdown(everything)
    links = [attrs["href"][1:] for tag, attrs in page.elements if tag == "a"]
    assert links == [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert (links[0], links[-1]) == ("summary", "whatwasevaluated")
    for text in (page.text, markdown.replace("\\", "")):
        for part in (
            "What was evaluated", "Summary", "MambaLRP against each other method", "Perturbation curves",
            "Conservation", "Rank agreement", "Sanity checks", "Localisation", "Plausibility",
            "hf_mambalrp/demo", "2.13.0", "5.23.0", "steps: 53", "logit", "remove", "0.05", "the predicted class",
            "95%", "1234", "42", "positive (20), negative (10)", "12 to 30, median 19", "(id 7)",
            "Integrated Gradients",
        ):  # fmt: skip
            assert part in text, part
    assert page.table("Determinism") == {"": ["Bitwise", "Change"], "MambaLRP": ["yes", "2.0e-08"]}
    assert page.table("Copying")["MambaLRP"] == ["0.93", "0.5"]
    assert "| MambaLRP | 0.410<br>\\[0.360, 0.470\\] |" in markdown
    assert "<unk>" in page.text
    assert "Sanity" not in to_markdown(results(names=("mambalrp", "random")))


def test_marks_follow_from_paired_intervals():
    """Intervals of the means overlap for all; a constant paired difference is still told apart."""
    found = results(same(shifted=0.9, top=1.0, noisy=0.99))
    markdown = to_markdown(found)
    table = markdown_table(markdown, "Methods and metrics")
    head = table.pop("Method")
    assert head == [
        "ΔAF higher is better", "ΔAI higher is better", "Comprehensiveness higher is better",
        "Sufficiency lower is better",
    ]  # fmt: skip
    stats = found["methods"]["top"]["delta_flip"]
    assert found["methods"]["shifted"]["delta_flip"]["high"] > stats["low"]
    assert table["top"][0] == f"{stats['mean']:.2f} [{stats['low']:.2f}, {stats['high']:.2f}] best"
    assert [cell.split("] ")[1:] for cell in table["top"]] == [["best"]] * 4
    assert [cell.split("] ")[1:] for cell in table["noisy"]] == [["≈ best"]] * 4
    assert [cell.split("]")[1:] for cell in table["shifted"]] == [[""]] * 4
    assert markdown.count("**best**") == 4
    assert "top has the highest mean" in markdown
    assert "top has the lowest mean" in markdown
    assert markdown.count("is not distinguishable from noisy.") == 4
    assert "is better than every other method with 95% confidence" in to_markdown(results(same(a=1.0, b=0.5)))


def test_differences_say_what_they_mean():
    table = markdown_table(
        to_markdown(results(same(mid=0.5, noisy=0.5, low=0.1, high=0.9))), "mid minus each other method"
    )
    words = {name: [cell.split("] ")[1] for cell in cells] for name, cells in list(table.items())[2:]}
    assert words == {
        "noisy": ["no difference shown"] * 4, "low": ["better"] * 4, "high": ["worse"] * 4,
    }  # fmt: skip
    assert table["low"][0].startswith("0.400 [0.400, 0.400]")
    assert table["low"][3].startswith("-0.400")


def test_one_example_supports_no_claim():
    found = results(count=1, names=("mambalrp", "random"))
    page = Page(to_html(found))
    mean = found["methods"]["mambalrp"]["delta_flip"]["mean"]
    cell = page.table("Methods and metrics")["MambaLRP"][0]
    assert re.fullmatch(r"(\S+) \[\1, \1\] best", cell)
    assert float(cell.split()[0]) == pytest.approx(mean, abs=0.01)
    assert page.table("Methods and metrics")["Random"][0].endswith("≈ best")
    assert page.table("MambaLRP minus each other method")["Random"][0].endswith("no difference shown")
    assert "One example has no spread" in page.text
    assert "confidence." not in page.text


def test_one_method_is_compared_with_nothing():
    found = results(names=("mambalrp",))
    text = to_markdown(found)
    assert "best" not in markdown_table(text, "Methods and metrics")["MambaLRP"][0]
    assert "against each other" not in text
    assert "Rank agreement" not in text
    assert "the other methods" not in to_html(found)


def test_conservation_and_agreement():
    found = results(names=("mambalrp", "random"))
    found["methods"]["random"]["conservation"] = {
        "score": [1.0, 2.0, -4.0], "relevance": [1.0, 1.0, 1.0], "biases": [0.5, -0.25, 0.25], "median_ratio": None,
    }  # fmt: skip
    found["agreement"]["spearman"] = [[1.0, -0.5], [-0.5, None]]
    page = Page(to_html(found))
    table = page.table("Sum of relevance and biases against the score")
    assert table["Random"] == ["1.25", "5.25", "–", "0.25"], "gaps are 0.5, 1.25 and 5.25"
    assert table["MambaLRP"][0] == "0"
    assert page.table("Mean Spearman correlation") == {
        "Method": ["1", "2"], "1 MambaLRP": ["1.00", "-0.50"], "2 Random": ["-0.50", "–"],
    }  # fmt: skip
    shades = [attrs["style"] for tag, attrs in page.elements if tag == "td" and "style" in attrs]
    assert shades == [
        "background:rgba(var(--pos),0.550)", "background:rgba(var(--neg),0.275)", "background:rgba(var(--neg),0.275)",
    ]  # fmt: skip


def test_html_is_inert_and_self_contained():
    found = results(same(**{HOSTILE: 1.0, "b": 0.5}), model=HOSTILE, sanity={HOSTILE: {HOSTILE: HOSTILE}})
    found["settings"] |= {"replacement": HOSTILE, "measure": HOSTILE, "target": HOSTILE}
    found["versions"][HOSTILE] = HOSTILE
    found["examples"][0]["target"] = HOSTILE
    found["settings"]["method_options"] = {HOSTILE: {HOSTILE: [HOSTILE, None]}}
    source = to_html(found)
    page = Page(source)
    assert page.text.count("<script>alert(1)</script>") >= 12
    assert {tag for tag, _ in page.elements} <= {
        "html", "head", "meta", "title", "style", "body", "main", "nav", "a", "section", "h1", "h2", "h3", "p", "b",
        "i", "em", "small", "sup", "ul", "li", "dl", "dt", "dd", "div", "span", "table", "thead", "tbody", "tr", "th",
        "td", "figure", "figcaption", "svg", "g", "path", "text", "defs", "use", "clippath", "rect", "pattern",
    }  # fmt: skip
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert not re.search(r"https?:|@import|[\x00-\x08\x0b-\x1f\u202a-\u202e]", source)
    markdown = to_markdown(found)
    assert "<script" not in markdown
    assert "\x1b" not in markdown


def test_drawings_take_the_colours_of_the_page(source):
    page = Page(source)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    body = source[source.index("<body>") :]
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', body))
    assert {a or b for a, b in used} <= set(ids)
    assert re.findall(r"#[0-9a-f]{6}\b", body) == []
    assert "<style" not in body
    drawings = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(drawings) == 4 + 9 + 9 + 9
    assert all(attrs["role"] == "img" for attrs in drawings)
    assert any(attrs["aria-label"].startswith("Mamba-Attribution: ΔA^F ") for attrs in drawings)


def test_same_results_same_bytes():
    found = results(names=("mambalrp", "random"))
    source = to_html(found)
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "another", "axes.facecolor": "red"}):
        assert to_html(found) == source


def test_curves():
    figure = plot(results(names=("mambalrp", "random")))
    figure.canvas.draw()
    assert len(figure.axes) == 4
    found = results(names=("mambalrp", "random"))["methods"]
    for ax, (kind, name) in zip(
        figure.axes, [(kind, name) for kind in ("flip", "insert") for name in ("mambalrp", "random")], strict=True
    ):
        morf, lerf = (found[name]["curves"][f"{kind}_{order}"] for order in ("morf", "lerf"))
        lines = {line.get_linestyle(): line.get_ydata() for line in ax.lines if line.get_color() == LIGHT.text}
        assert list(lines["-"]) == morf
        assert list(lines["--"]) == lerf
        assert list(ax.lines[-1].get_xdata()) == GRID
        filled = [
            mpl.colors.to_hex(area.get_facecolor()[0])
            for area in ax.collections
            if any(path.get_extents().width > 0 for path in area.get_paths())
        ]
        assert filled == [LIGHT.negative if name == "random" else LIGHT.positive], "random's curves are the wrong way"
        assert ax.get_ylim() == figure.axes[0].get_ylim()
        assert ax.get_title(loc="left").startswith({"mambalrp": "MambaLRP", "random": "Random"}[name])


def test_matplotlib_is_optional(monkeypatch):
    found = results(names=("mambalrp", "random"))
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.style"):
        monkeypatch.setitem(sys.modules, name, None)
    page = Page(to_html(found))
    assert "svg" not in {tag for tag, _ in page.elements}
    assert page.text.count('pip install "hf_mambalrp[plot]"') == 3, "once a section"
    assert page.table("Methods and metrics")["MambaLRP"][0].endswith("best")
    with pytest.raises(MissingExtraError, match=r'pip install "hf_mambalrp\[plot\]"'):
        plot(found)


def test_markdown_tables_are_rectangular(everything):
    hostile = results(same(**{HOSTILE: 1.0, "b": 0.5}), model=None)
    for text in (to_markdown(everything), to_markdown(hostile)):
        blocks = [block for block in text.split("\n\n") if block.startswith("|")]
        assert len(blocks) >= 5
        for block in blocks:
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block
    assert "a model without a name" in text


def rows_of(table):
    return [tuple(cell.text for cell in line) for line in table.cells]


def test_any_nested_numbers_become_tables():
    tables = tables_of(
        {
            "signed": {"mambalrp": {"head": 0.9, "layer_3": None}, "random": {"head": 0.0, "layer_3": 1234.56}},
            "examples": 20,
            "per": {"distance": [1, 2], "roc_auc": [0.5, 0.25]},
            "runs": [{"seed": 1, "ok": True}, {"seed": 2}],
            "raw": {"scores": list(range(100))},
        }
    )
    assert [(table.caption, table.head, rows_of(table)) for table in tables] == [
        ("Overall", ("", "Value"), [("Examples", "20")]),
        ("Signed", ("", "Head", "Layer 3"), [("MambaLRP", "0.9", "–"), ("Random", "0", "1235")]),
        ("Per", ("", "Distance", "ROC AUC"), [("1", "1", "0.5"), ("2", "2", "0.25")]),
        ("Runs", ("", "Seed", "Ok"), [("1", "1", "yes"), ("2", "2", "")]),
        ("Raw", ("", "Value"), [("Scores", "100 values, 0 to 99, mean 49.5")]),
    ]
    (deep,) = tables_of({"a": {f"layer_{i}": float(i) for i in range(24)}, "b": {"layer_0": 7}})
    assert deep.head == ("", "A", "B"), "a row a layer rather than 24 columns"
    assert rows_of(deep)[:2] == [("Layer 0", "0", "7"), ("Layer 1", "1", "")]


def test_results_of_several_methods_share_tables():
    one = {"method": "x", "mean": {"hit": 0.5, "roc_auc": 0.75}, "by_distance": {"1": {"hit": 1.0}, "2": {"hit": 0.0}}}
    tables = tables_of({"copying": {"mambalrp": one, "random": {**one, "mean": {"hit": 0.1, "roc_auc": 0.5}}}})
    found = {table.caption: rows_of(table) for table in tables}
    assert found["Copying: Mean"] == [("MambaLRP", "0.5", "0.75"), ("Random", "0.1", "0.5")]
    assert found["Copying"] == [("Method", "x", "x")]
    assert found["Copying: By distance: Random"] == [("1", "1"), ("2", "0")]
    many = {"pooled": {"words": 3}, "examples": [{"words": i, "auc": None if i else 0.5} for i in range(20)]}
    found = {table.caption: rows_of(table) for table in tables_of({"mambalrp": many, "latim": many})}
    assert found["Pooled"] == [("MambaLRP", "3"), ("LaTIM", "3")]
    assert found["Examples: LaTIM"] == [("Words", "20 values, 0 to 19, mean 9.5"), ("AUC", "0.5")]


def test_numbers():
    assert [number(x) for x in (0.0, 12, 0.12345, 1234.5, -0.00004, 98.76)] == [
        "0", "12", "0.123", "1234", "-4.0e-05", "98.8",
    ]  # fmt: skip
    assert fixed(-0.001, 2) == "0.00"
    assert fixed(-0.01, 2) == "-0.01"
    assert decimals_for([{"mean": 5.0, "low": 4.88, "high": 5.12}]) == 2
    assert decimals_for([{"mean": 500.0, "low": 300.0, "high": 700.0}]) == 0
    assert decimals_for([{"mean": 0.5, "low": 0.5, "high": 0.5}]) == 3
    assert decimals_for([{"mean": 0.0, "low": 0.0, "high": 0.0}]) == 2
    assert [readable(key) for key in ("roc_auc", "recall_at_k", "latim")] == ["ROC AUC", "Recall at k", "LaTIM"]
