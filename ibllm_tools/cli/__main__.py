"""Run the command line with `python -m ibllm_tools.cli`."""

from ibllm_tools.cli import main

main()
