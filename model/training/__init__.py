"""Pretraining of either model, checkpoints and run folders, loading and exporting what was trained."""
