"""Of the project as a whole: house rules, package, pages."""
