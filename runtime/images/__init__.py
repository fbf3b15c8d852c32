"""Image files: which there are, how they are read, and which data sets they make."""
