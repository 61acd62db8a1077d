"""Run transformers' own model tests on its classes and on ours: what theirs pass, ours pass, but for a named reason.

``make test-peers`` runs it, with the source archive of the installed transformers on the path. It prints a table and
ends with 1 where one of our classes does not pass what its peers pass and :data:`REASONS` does not say why.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import pytest

FAMILIES = ("Mamba", "FalconMamba", "Mamba2", "Bamba", "GraniteMoeHybrid", "FalconH1", "NemotronH")
WITH_CLASSIFIER = ("Jamba", "Zamba", "Zamba2")
"""Families whose classifier transformers has."""
CLASSIFIERS = ["GPT2ForSequenceClassification", "LlamaForSequenceClassification"]
PEERS = (
    {f"{family}LRPForCausalLM": [f"{family}ForCausalLM"] for family in FAMILIES + WITH_CLASSIFIER}
    | {f"{family}{kind}ForSequenceClassification": CLASSIFIERS for family in FAMILIES for kind in ("", "LRP")}
    | {f"{family}LRPForSequenceClassification": [f"{family}ForSequenceClassification"] for family in WITH_CLASSIFIER}
)
"""In whose place each of ours stands. A classifier is to pass what both of them pass, but for what the family's own
language model skips: tests of attention."""

MISSING = "loads a checkpoint that lacks weights, which is an error in an explainable class: MissingHeadError"
REASONS = {
    "test_base_model_prefix_loads_base_weights": MISSING,
    "test_can_init_all_missing_weights": MISSING,
    "test_correct_missing_keys": MISSING,
    "test_model_weights_reload_no_missing_tied_weights": MISSING,
}
"""Why an explainable class fails a test; the error at the end of a reason is what it has to fail with."""
OF_THE_FILE = {"test_moe_models_record_router_logits"}
"""Tests that read the file in which a class stands for its experts, which are in transformers' file."""


class Outcomes:
    """Collects how each test of each class ended, the worst of its phases and parts, and what failures said."""

    ORDER = ("passed", "skipped", "failed")

    def __init__(self):
        self.ended = defaultdict(dict)
        self.said = {}

    def pytest_runtest_logreport(self, report):
        model_class, test = report.nodeid.split("::")[-2:]
        of_class = self.ended[model_class.removeprefix("Test")]
        of_class[test] = max(of_class.get(test, "passed"), report.outcome, key=self.ORDER.index)
        if report.failed:
            self.said.setdefault((model_class.removeprefix("Test"), test), str(report.longrepr))

    def compare(self, name):
        """What the peers of a class pass, what of it the class passes, fails for a reason, and does not pass."""
        peers, (family, _, task) = PEERS[name], name.replace("LRP", "").partition("For")
        required = {
            test for test in self.ended[peers[0]] if all(self.ended[p].get(test) == "passed" for p in peers)
        } - OF_THE_FILE
        if task == "SequenceClassification":
            own = self.ended[f"{family}ForCausalLM"]
            required = {test for test in required if own.get(test) != "skipped"}
        differing = {test for test in required if self.ended[name].get(test) != "passed"}
        reasoned = {test for test in differing if "LRP" in name and self._is_reasoned(name, test)}
        return required, required - differing, reasoned, differing - reasoned

    def _is_reasoned(self, name, test):
        return test in REASONS and REASONS[test].rpartition(" ")[2] in self.said.get((name, test), "")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"Default: all of {', '.join(PEERS)}.")
    ours = parser.parse_args().classes or list(PEERS)
    peers = {peer for name in ours for peer in PEERS[name]}
    peers |= {f"{name.replace('LRP', '').partition('For')[0]}ForCausalLM" for name in ours}
    outcomes, suite = Outcomes(), Path(__file__).with_name("suite.py")
    options = [
        "-c",
        "/dev/null",
        f"--rootdir={suite.parent}",
        "-p",
        "no:cacheprovider",
        "-q",
        "--tb=short",
        "--no-summary",
    ]
    selected = [f"{suite}::Test{name}" for name in [*sorted(peers), *ours]]
    code = pytest.main([*options, "-W", "ignore", *selected], plugins=[outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(code)
    unexplained = 0
    print(f"\n{'class':44}{'theirs pass':>12}{'ours pass':>12}{'for a reason':>14}{'differing':>11}")
    for name in ours:
        counted = outcomes.compare(name)
        print(f"{name:44}{len(counted[0]):12}{len(counted[1]):12}{len(counted[2]):14}{len(counted[3]):11}")
        for test in sorted(counted[3]):
            print(f"    {test}: {outcomes.ended[name].get(test, 'not run')}\n{outcomes.said.get((name, test), '')}")
        unexplained += len(counted[3]) + (not counted[0])
    print("Reasons:", *(f"  {test} {reason}" for test, reason in REASONS.items()), sep="\n")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
