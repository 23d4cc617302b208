"""Dataset -> pretrained models, downstream tasks, report. Light: importing the package does not load torch."""
