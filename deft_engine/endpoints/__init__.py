"""Servers that speak OpenAI's chat completions: asked safely, paid for once, and never above a budget."""
