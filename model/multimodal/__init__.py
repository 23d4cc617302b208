"""The multi-modal foundation model: network, masking, losses, training step, inference."""
