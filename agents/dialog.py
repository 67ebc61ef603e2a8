"""Talks over changing media, turn by turn. Served by `langgraph dev`; see README.md."""

from ibllm_tools.agent_graphs.dialog import create_graph

graph = create_graph()
