"""GPU memory: counted while a step runs, and predicted before it does."""
