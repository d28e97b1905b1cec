"""What did we find? Runs, back-tests, statistics, comparison tables and reports."""
