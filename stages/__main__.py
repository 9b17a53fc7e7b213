"""`python -m stages distill`, for machines where the project is not installed."""

from stages.cli import main

main()
