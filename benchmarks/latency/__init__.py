"""``uflow-bench``: how fast a bundle is here, on every engine, in a form that a later run can be held against."""
