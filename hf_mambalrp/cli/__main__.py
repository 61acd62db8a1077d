"""``python -m hf_mambalrp.cli``."""

from hf_mambalrp.cli.main import main

main()
