"""The line: frames go from sources through the inspector to sinks, and every frame is counted."""
