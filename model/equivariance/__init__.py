"""Wave equivariance: the group, models made equivariant, and what that is worth."""
