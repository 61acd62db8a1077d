"""Every example runs as it stands, and prints what it promises."""

import json
import shlex
from pathlib import Path

import forks
import pytest
import torch
from mamba_ssm_stand_in import MambaConfig, MambaLMHeadModel
from PIL import Image
from random_models import random_model
from small import byte_level_tokenizer

from hf_mambalrp import DEMO_VISION_MODEL

EXAMPLES = Path(__file__).parent.parent / "examples"
COMMANDS = {
    "audit_words.py": ["--html", "audit.html"],
    "audit/biographies.py": shlex.split("--texts 128 --audited 60 --output biographies"),
    "audit/long_range.py": shlex.split("--steps 2 --length 12 --sequences 20 --output long_range"),
    "audit/packaged.py": shlex.split("--data labelled.jsonl --output packaged"),
    "audit/power.py": shlex.split("--output power --models 1 --kinds middle --quick --json power.json"),
    "audit/regions.py": shlex.split("--images 10 --output regions"),
    "audit/shortcut.py": shlex.split("--texts 128 --audited 60 --output shortcut"),
    "evaluate_model.py": ["--samples", "2", "--methods", "mambalrp", "random"],
    "explain_generation.py": ["The capital of", "--model", "model", "--new-tokens", "4", "--html", "generated.html"],
    "explain_image.py": ["--png", "out/garments.png"],
    "explain_review.py": ["A dull and lifeless film.", "--html", "review.html"],
    "explain_next_token.py": ["The capital of France is", " Paris", " London", "--model", "model", "--new-tokens", "3"],
    "explain_state_spaces_checkpoint.py": ["state-spaces", "--tokenizer", "model", "--save", "converted"],
    "hidden_attention.py": ["A dull film, though the actors are wonderful."],
    "hidden_attention_image.py": [],
    "hybrid_parts.py": ["--steps", "2", "--png", "parts.png", "--attention-rule", "attnlrp"],
    "save_and_reload.py": [],
    "benchmarks/app.py": shlex.split("--loads 1 --tabs audit --json run.json"),
    "benchmarks/audit.py": shlex.split("--rows 30 --threads 1 --json run.json"),
    "benchmarks/attention.py": shlex.split(
        "--hidden-size 32 --layers 2 --vocabulary 100 --length 40 --kind unified --threads 1 --repeats 1 "
        "--json run.json"
    ),
    "share_on_the_hub.py": ["--dry-run", "shared"],
    "benchmarks/cpu.py": shlex.split(
        "--hidden-size 32 --layers 2 --vocabulary 100 --lengths 16 32 --forward-lengths 16 --gradient-length 16 "
        "--threads 1 --repeats 1 --neighbours 1 --json run.json"
    ),
    "benchmarks/dataset.py": shlex.split("--rows 12 --single 2"),  # which starts a process of its own, in earnest
    "benchmarks/gpu.py": shlex.split(
        "--device cpu --slow-hf --models tiny tiny2 --dtypes float32 --lengths 8 16 --batches 2 --batch-lengths 8 "
        "--vocabulary 100 --turns 1 --repeats 1 --seconds-per-row 0 --chunk-sizes 4 --json run.json"
    ),
    "benchmarks/hybrids.py": shlex.split(
        "--families bamba jamba --lengths 12 --hidden-size 64 --repeats 1 --json run.json"
    ),
    "benchmarks/kernels_fused.py": ["--shapes", "1x4", "--widths", "8", "--no-tilings"],
    "benchmarks/kernels_gated_scan.py": [],
    "benchmarks/kernels_delta_scan.py": shlex.split(
        "--shapes tiny tiny-channels --lengths 20 --gate-length 40 --dtype float32"
    ),
    "benchmarks/kernels_ssd_scan.py": shlex.split(
        "--dtypes float32 --timed-dtypes float32 --shapes tiny --gate-shapes tiny --lengths 16 --gate-lengths 40 "
        "--batches 1 --no-sweep"
    ),
    "benchmarks/plot.py": ["run.json", "--output", "gpu.png"],
    "benchmarks/vision.py": shlex.split("--models tiny --batches 1 3 --threads 1 --repeats 1 --json run.json"),
    "distributed/explain_corpus.py": ["rows.jsonl", "explained"],
    "distributed/measure_scaling.py": shlex.split(
        "--processes 1 --hidden-size 16 --layers 1 --lengths 4 --tokens 16 --batch-tokens 16 --window-tokens 8"
    ),
    "evaluation/random_weights.py": shlex.split(
        "--data rows.jsonl --samples 2 --draws 1 --methods mambalrp --output random_weights.json"
    ),
    "evaluation/sentiment.py": shlex.split(
        "--data rows.jsonl --samples 2 --sanity-samples 2 --randomisations 1 --methods mambalrp random --output report"
    ),
    "evaluation/tasks.py": shlex.split(
        "--models tasks --output tasks.json --methods mambalrp random --sequences 2 --needle-factors 1 2"
    ),
    "evaluation/vision.py": shlex.split("--scenes 1 --methods mambalrp random --step 1.0 --output vision"),
    "paper/alignment.py": shlex.split("--data translations --model model --methods mambalrp random --output out"),
    "paper/arc.py": shlex.split("--data arc --model model --methods mambalrp random --output out"),
    "paper/images.py": [
        *shlex.split("--table perturbation --data pictures --samples 1 --methods raw_attention --output out --model"),
        str(DEMO_VISION_MODEL),
    ],
    "paper/side_by_side.py": ["tables", "--tasks", str(EXAMPLES / "evaluation/results/tasks.json")],
    "paper/text.py": shlex.split(
        "--task sst2 --data sst2 --model model --epochs 1 --samples 1 --methods mambalrp random --output out"
    ),
}
PROMISED = {
    "audit_words.py": ["What does the model rely on?", "Not examined", "'movie' is in 7 texts", "in 4 texts"],
    "audit/biographies.py": ["she for he: ", "errors, woman: ", "written: biographies/unequal/audit.html"],
    "audit/long_range.py": ["mamba, untrained: ", "mamba2, trained: ", "written: long_range/long_range.png"],
    "audit/packaged.py": ["What does the model rely on?", "written: packaged/audit.json"],
    "audit/power.py": ["| middle | shortcut | ", "| middle | packaged | ", "written: power.json"],
    "audit/regions.py": ["garment", "only the named regions were tested", "written: regions/audit.html"],
    "audit/shortcut.py": ["confirmed and unwanted: ", "without the words: ", "written: shortcut/audit.html"],
    "evaluate_model.py": ["Faithfulness on demo, 2 examples", "mambalrp - random: ", "written: evaluation.html"],
    "explain_generation.py": ["written: generated.html", "Why '", "The closest choice:", "rather than"],
    "explain_image.py": [
        "What speaks for bag rather than trouser?",
        "class token",
        "positive: row",
        "written: out/garm",
    ],
    "explain_review.py": ["positive", "negative", "sum of relevance", "written: review.html"],
    "explain_next_token.py": ["Paris", "London", "sum of relevance"],
    "explain_state_spaces_checkpoint.py": ["capital", "sum of relevance", "a Mamba2ForCausalLM for transformers"],
    "hidden_attention.py": ["written: attention.html", "the last token reads most:", "latim: "],
    "hidden_attention_image.py": ["backward, the class token", "written: out/attention.html"],
    "benchmarks/app.py": ["| audit | "],
    "benchmarks/audit.py": ["| 30 |"],
    "benchmarks/attention.py": ["correct: entries within", "| mean over channels, L x L |", "| the last row |"],
    "hybrid_parts.py": ["Relevance by part", "+ softmax ", "attention reads most at:", "written: parts.png"],
    "save_and_reload.py": ["mambalrp", "read back exactly: True"],
    "share_on_the_hub.py": ["written: shared/README.md"],
    "benchmarks/cpu.py": [
        "| explain() | 16 |",
        "| matrix products | 16 |",
        "| HF forward, no gradient | 16 |",
        "| HF gradient x input | 16 |",
    ],
    "benchmarks/gpu.py": [
        "| tiny | float32 | 2 x 8 | explain() |",
        "| tiny2 | float32 | 1 x 16 | HF forward, last logit |",
    ],
    "benchmarks/hybrids.py": ["| bamba | 12 |", "| jamba | 12 |"],
    "benchmarks/kernels_fused.py": ["ALL CORRECT"],
    "benchmarks/kernels_gated_scan.py": ["a check of one configuration"],
    "benchmarks/kernels_delta_scan.py": ["over the bound: nothing"],
    "benchmarks/kernels_ssd_scan.py": ["over the bound: nothing"],
    "benchmarks/plot.py": ["written: gpu.png"],
    "benchmarks/vision.py": ["| tiny | float32 | 3 | explain() |", "| tiny | float32 | 1 | gradient x input |"],
    "benchmarks/dataset.py": ["| 12 |"],
    "distributed/explain_corpus.py": ["2 rows on 1 processes: 2 explained now", "sum of relevance"],
    "distributed/measure_scaling.py": ["| 4 | 1 |", "| 1.00 |"],
    "evaluation/random_weights.py": ["embeddings of one length: same snippet", "written: random_weights.json"],
    "evaluation/sentiment.py": ["mambalrp", "written: report/report.html"],
    "evaluation/tasks.py": [
        "needle-mamba-0, length 16",
        "needle-mamba-1, length 8",
        "| random |",
        "written: tasks.json",
    ],
    "evaluation/vision.py": [
        "mambalrp",
        *(f"written: vision/{part}/report.html" for part in ("one", "two", "contrast")),
    ],
    "paper/alignment.py": ["random                   AER ", "written: out/side_by_side.html"],
    "paper/arc.py": ["random                   acc_norm_most ", "written: out/side_by_side.html"],
    "paper/images.py": ["Positive", "written: out/side_by_side.html"],
    "paper/side_by_side.py": ["2 tables: Copying, Mamba-1, Copying, Mamba-2", "written: tables/side_by_side.html"],
    "paper/text.py": ["mambalrp", "written: out/side_by_side.html"],
}
LABELLED = {"dull": "negative", "lovely": "positive"}
GPU_RUN = {
    "date": "2026-11-22",
    "device": "none",
    "versions": {"torch": "2.11.0", "mamba_ssm": None},
    "rows": [
        {"model": "tiny", "dtype": "float32", "batch": 1, "length": length, "method": method, **result}
        for length in (8, 16)
        for method, result in (
            ("explain()", {"status": "ok", "ms": 1.0 * length, "peak_gib": 0.1}),
            ("HF forward", {"status": "out of memory", "tried": True}),
        )
    ],
}


def test_every_example_is_run_here():
    scripts = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    assert scripts - {path for path in scripts if path.startswith("training/")} == set(COMMANDS)


def test_what_an_example_starts_does_not_start_it_again():
    """Processes that are spawned import the example, which forks do not."""
    texts = [path.read_text() for path in EXAMPLES.rglob("*.py")]
    spawning = [text for text in texts if "get_context" in text]
    assert len(spawning) >= 2
    assert all(text.endswith('\n\n\nif __name__ == "__main__":\n    main()\n') for text in spawning)


def write_data(folder):
    """Texts, texts with labels, a translation, a question, and pictures in a folder for each label."""
    rows = ({"id": str(i), "text": text} for i, text in enumerate(["A dull film.", "A lovely and quiet film."]))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = ({"text": f"A {word} film {n}.", "label": label} for n in range(12) for word, label in LABELLED.items())
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (folder / "sst2").mkdir()
    for split in ("train", "validation"):
        (folder / "sst2" / f"{split}.csv").write_text("sentence,label\nA dull film.,0\nA lovely film.,1\n")
    (folder / "translations").mkdir()
    (folder / "translations/train.csv").write_text("source,target,alignment\nEin Film.,A film.,0-0 1-1\n")
    (folder / "arc").mkdir()
    choices = {"text": ["Paris", "London"], "label": ["A", "B"]}
    question = {"id": "1", "question": "What is the capital of France?", "choices": choices, "answerKey": "A"}
    (folder / "arc/test.jsonl").write_text(json.dumps(question) + "\n")
    for label, colour in enumerate(("red", "blue")):
        (folder / f"pictures/validation/{label}").mkdir(parents=True)
        Image.new("RGB", (64, 64), colour).save(folder / f"pictures/validation/{label}/0.png")


@pytest.mark.parametrize("example", COMMANDS)
def test_example(example, tmp_path):
    tokenizer = byte_level_tokenizer("The capital of France is Paris. The capital of England is London.")
    model = random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = {"layer": "Mamba2", "headdim": 8, "d_state": 8}
    MambaLMHeadModel(MambaConfig(d_model=16, n_layer=1, vocab_size=len(tokenizer), ssm_cfg=settings)).save_pretrained(
        tmp_path / "state-spaces"
    )
    write_data(tmp_path)
    for seed in range(2):
        task = tmp_path / "tasks" / f"needle-mamba-{seed}"
        random_model(num_layers=1, vocab_size=12, dtype=torch.float32, seed=seed).save_pretrained(task)
        (task / "training.json").write_text('{"largest size": 8}')
    if example == "benchmarks/plot.py":
        (tmp_path / "run.json").write_text(json.dumps(GPU_RUN))
    result = forks.run([EXAMPLES / example, *COMMANDS[example]], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "⟨empty⟩" not in result.stdout
    for words in PROMISED[example]:
        assert words in result.stdout
    check_files(example, tmp_path)


def check_files(example, folder):
    """What an example has written."""
    if example == "explain_review.py":
        assert "lifeless" in (folder / "review.html").read_text()
    if example == "explain_generation.py":
        assert "capital" in (folder / "generated.html").read_text()
    if example == "explain_state_spaces_checkpoint.py":
        assert json.loads((folder / "converted" / "config.json").read_text())["model_type"] == "mamba2"
    if example == "benchmarks/cpu.py":
        rows = json.loads((folder / "run.json").read_text())["rows"]
        assert [row["length"] for row in rows] == [16, 16, 16, 16, 32, 32]
        assert all(row["seconds_beside_neighbours"] > 0 for row in rows)
    if example == "benchmarks/gpu.py":
        run = json.loads((folder / "run.json").read_text())
        assert [check["passed"] for check in run["checks"]] == [True, True]
        assert {row["status"] for row in run["rows"]} == {"ok"}
        assert len(run["rows"]) == 36
    if example == "benchmarks/vision.py":
        run = json.loads((folder / "run.json").read_text())
        assert [check["passed"] for check in run["checks"]] == [True]
        assert {row["status"] for row in run["rows"]} == {"ok"}
        assert [row["batch"] for row in run["rows"]] == [1] * 4 + [3] * 4  # nothing is recorded on the CPU
    if example == "evaluation/tasks.py":
        found = json.loads((folder / "tasks.json").read_text())
        each = [found["tasks"][f"needle-mamba-{seed}"]["length 8"]["mambalrp"]["roc_auc"]["mean"] for seed in range(2)]
        both = found["over seeds"]["needle-mamba"]["length 8"]["mambalrp"]["roc_auc"]
        assert both == {"mean": sum(each) / 2, "low": min(each), "high": max(each), "seeds": each}
    if example == "explain_image.py":
        assert (folder / "out/garments.png").read_bytes().startswith(b"\x89PNG")
    if example == "hybrid_parts.py":
        assert (folder / "parts.png").read_bytes().startswith(b"\x89PNG")
    if example == "benchmarks/plot.py":
        assert (folder / "gpu.png").read_bytes().startswith(b"\x89PNG")
