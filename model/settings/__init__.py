"""What a recipe says about the models, their training and their evaluation."""
