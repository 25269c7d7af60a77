"""Conversations in llama.cpp's terms, and prompts that are longer than a slot."""
