"""Files that are whole or not there at all, JSON and arrays that are bounded and checked."""
