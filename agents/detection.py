"""Answers about pictures, checked by a detector. Served by `langgraph dev`; see README.md."""

from ibllm_tools.agent_graphs.detection import create_graph

graph = create_graph()
