"""The path model: a network that is shown what the waves of a partial channel did in the scene.

`front` recovers and follows the waves (`wavecity.model.rays`) and lists the places where they may come down, `cache` keeps
that on disk; `network` attends to waves, places and the map and predicts location, spectrum, masked CSI and occupancy;
`module` trains it, `inference` uses it.
"""
