"""The bundle: a folder with graphs, engines, a manifest and its own evidence."""
