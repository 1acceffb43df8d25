"""The fit: request, plan, factors, refinement, certificate, and the orchestrator that walks through them."""
