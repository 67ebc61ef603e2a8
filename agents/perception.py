"""Routes a question to the model or to experts. Served by `langgraph dev`; see README.md."""

from ibllm_tools.agent_graphs.perception import create_graph

graph = create_graph()
