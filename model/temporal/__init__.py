"""LWM-Temporal, the model of channels under mobility: network, attention, masking, first guesses."""
