"""The admin as a site: navigation, front page, small pages, middleware."""
