"""Whole test sets: run store, tables, HTML."""
