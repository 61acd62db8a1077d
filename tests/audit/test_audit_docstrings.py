"""Every public call of the room shows an example that does what it says."""

import doctest
import inspect

import pytest

from hf_mambalrp import audit

CALLS = {name: call for name in audit.__all__ if inspect.isfunction(call := getattr(audit, name))}


@pytest.mark.parametrize("name", CALLS)
def test_the_example_does_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = CALLS[name].__doc__.partition("Example:\n")[2]
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert f"{name}(" in example.docstring
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)
