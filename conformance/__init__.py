"""Does an implementation compute what the papers say? (The suite.)"""
