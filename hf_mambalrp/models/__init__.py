"""The mixin, explainable classes, classifiers, Auto classes, and checkpoints in other formats."""
