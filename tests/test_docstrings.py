"""Every public call shows an example in its docstring, and every example does what it says."""

import doctest
import inspect

import pytest

import hf_mambalrp

ON_THE_HUB = {"create_space", "push_explanations", "push_to_hub"}
"""Calls that do nothing without a network: the line that calls them is shown and not run."""
WRITTEN = {"forward": "model"}
"""How a call is written, where not by its name."""


def public_calls():
    """What the package offers and can be called, by its name: functions, classes and the methods that it gives them.

    A method that several classes inherit from one of the package is there once, under the name of that one.
    """
    calls = {}
    for name in hf_mambalrp.__all__:
        call = getattr(hf_mambalrp, name)
        if callable(call):
            calls[name] = call
        for attribute in dir(call) if inspect.isclass(call) else ():
            owner = next((base for base in call.__mro__ if attribute in vars(base)), object)
            ours = owner.__module__.startswith("hf_mambalrp") and not attribute.startswith("_")
            if ours and inspect.isroutine(getattr(call, attribute)):
                calls[f"{owner.__name__}.{attribute}"] = getattr(call, attribute)
    return calls


CALLS = public_calls()


@pytest.mark.parametrize("name", CALLS)
def test_the_example_of_a_public_call_does_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples write files
    text = CALLS[name].__doc__ or ""
    example = doctest.DocTestParser().get_doctest(text.partition("Example:\n")[2], {}, name, None, 0)
    assert example.examples, f"the docstring of {name} has no Example"
    *before, last = example.examples
    called = name.rpartition(".")[2]
    if inspect.isroutine(CALLS[name]):
        assert f"{WRITTEN.get(called, called)}(" in example.docstring, "the example is of something else"
    assert (doctest.SKIP in last.options) == (called in ON_THE_HUB)
    assert not any(doctest.SKIP in line.options for line in before)
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_the_calls_that_this_is_about():
    methods = {name.rpartition(".")[2] for name in CALLS if "." in name}
    assert {"explain", "explain_generation", "hidden_attention", "from_pretrained", "save_pretrained"} <= methods
    assert {"show", "to_html", "to_text", "to_pandas", "words", "top", "end_share", "plot", "document"} <= methods
    assert {"step", "map", "concat", "save", "load", "push_to_hub", "write_report"} <= methods
    assert {"explain_dataset", "load", "MambaLRPError", "Mamba2ForSequenceClassification"} <= set(CALLS)
