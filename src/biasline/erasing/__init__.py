"""Erasing: rows taken out again, with all that learned from them or has them."""
