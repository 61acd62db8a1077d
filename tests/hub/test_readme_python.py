"""Every Python block of the README, one after another as a reader would run them, against the Hub on loopback."""

import json
import re
from pathlib import Path

from hf_mambalrp import DEMO_MODEL, load_explanations

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_all_python_blocks_run_in_order(hub, folder, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 11
    monkeypatch.chdir(tmp_path)
    reviews = (Path(DEMO_MODEL) / "reviews.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    Path("reviews.jsonl").write_text("\n".join(reviews), encoding="utf-8")
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["evaluation"].results
    assert names["found"].not_examined  # of the audit
    assert Path("bag.png").read_bytes().startswith(b"\x89PNG")
    assert len(names["model"].explain([json.loads(review)["text"] for review in reviews])) == 3
    assert len(list(load_explanations("out/explained"))) == 3
    assert set(hub.repositories) == {
        ("model", "me/explained-model"),
        ("dataset", "me/its-explanations"),
        ("dataset", "me/corpus-explained"),
        ("space", "me/why"),
    }
