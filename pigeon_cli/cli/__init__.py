"""The commands: the only place that knows Typer and Rich. Nothing here computes, nothing here imports torch early."""
