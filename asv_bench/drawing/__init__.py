"""The pictures of the results' page.

From outside: `pictures.pictures`.
"""
