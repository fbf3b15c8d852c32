"""The line: sources in, frames through the inspector, results to sinks, every frame accounted for."""
