"""Recipes, flows and the command line: wires geo, raytrace, dataset and model."""
