"""Stores from what is there already: channels measured or simulated elsewhere, and parts of other stores."""
