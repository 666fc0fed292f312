"""What runs look like from outside: plots, later statistics and reports."""
