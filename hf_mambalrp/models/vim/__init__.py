"""Vision Mamba: configuration, model, image classifier."""
