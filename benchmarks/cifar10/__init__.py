"""A table of students beside those that saw the original data: rows, runs, results, text."""
