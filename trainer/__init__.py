"""GPU workers: they claim trials over HTTP and train language models."""
