"""Image files: how they are found, read and decoded, and the layouts of data sets."""
