"""A packaged model that many calls of the command ask for."""


def read_once(monkeypatch, auto_class, packaged, model):
    """Where the command loads the ``packaged`` model by its class, it gets this one; every other is read."""
    read = auto_class.from_pretrained
    monkeypatch.setattr(
        auto_class, "from_pretrained", lambda name, **options: model if name == packaged else read(name, **options)
    )
