"""What only makes the line engine fast; without it the results are the same."""
