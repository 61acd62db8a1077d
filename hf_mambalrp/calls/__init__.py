"""From a call to its result: inputs, targets, tokens, the forward check, and one module for each call."""
