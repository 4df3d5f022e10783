"""One self-contained HTML page about a training or an evaluation, with its figures and tables for a paper."""
