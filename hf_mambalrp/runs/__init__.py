"""What runs over rows share: reading, bad rows, batches, a folder to go on in. It loads no torch or transformers."""
