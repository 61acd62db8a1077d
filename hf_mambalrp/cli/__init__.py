"""The command ``hf-mambalrp``."""
