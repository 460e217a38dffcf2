"""Train and evaluate any model for any task: a thin house round `lightning.Fabric`."""
