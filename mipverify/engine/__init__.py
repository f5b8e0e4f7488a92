"""The cascade of methods that decides a question, and its verdict."""
