"""Videos, recordings and photos, with what experts find. Served by `langgraph dev`: README.md."""

from ibllm_tools.agent_graphs.modality_experts import create_graph

graph = create_graph()
