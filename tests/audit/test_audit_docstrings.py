"""Every public call, class and method of the room shows an example that does what it says."""

import doctest
import inspect

import pytest

from hf_mambalrp import audit


def public():
    """Calls and classes by name, and the methods that a class does not share with other results."""
    for name in audit.__all__:
        found = getattr(audit, name)
        if callable(found):
            yield name, found
        for method in vars(found) if inspect.isclass(found) else ():
            ours = not method.startswith("_") and inspect.isroutine(call := getattr(found, method))
            if ours and call.__module__ == found.__module__:
                yield f"{name}.{method}", call


CALLS = dict(public())


@pytest.mark.parametrize("name", CALLS)
def test_the_example_does_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = CALLS[name].__doc__.partition("Example:\n")[2]
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    if inspect.isroutine(CALLS[name]):
        assert f"{name.rpartition('.')[2]}(" in example.docstring
    assert example.examples
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_the_calls_that_this_is_about():
    methods = {"Audit.plot", "Audit.to_pandas", "Audit.save", "Audit.load", "Audit.document"}
    assert {*audit.__all__} - {"HE_SHE"} | methods == CALLS.keys()
