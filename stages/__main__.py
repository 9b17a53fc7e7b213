"""`python -m kd3_stages distill`, for machines where the project is not installed."""

from kd3_stages.cli import main

main()
