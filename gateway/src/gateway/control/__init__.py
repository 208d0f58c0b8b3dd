"""The control side, in FastAPI: pages for people and programs, and nothing that a proxied request passes."""
