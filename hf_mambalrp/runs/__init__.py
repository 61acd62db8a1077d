"""What every run over rows shares: reading them, whatever holds them. It loads neither torch nor transformers."""
