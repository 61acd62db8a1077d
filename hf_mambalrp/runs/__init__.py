"""What runs over rows share: reading, bad rows, batches, processes, a folder. It loads no torch or transformers."""
