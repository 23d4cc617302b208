"""What learns from labels: heads, fine-tuning, the choice of a step and a rate; and simple predictors."""
