"""What the waves of a partial channel are, where they go in the scene, and where their user must be: no training.

`waves` recovers plane waves off the grid, each with the bounce off the ground that comes with it; `follow` mirrors them at
the walls of the map until they are down at a user's height; `consensus` says where the landing points agree; `locate` is
all of it.
"""
