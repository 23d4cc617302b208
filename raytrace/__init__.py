"""Scene + users -> Channels (paths, CSI). Light: importing the package does not load Sionna."""
