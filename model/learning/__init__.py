"""Learning from labels: heads, fine-tuning, the choice of step and learning rate; baselines and simple predictors."""
