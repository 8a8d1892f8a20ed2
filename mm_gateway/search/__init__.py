"""Where search-qa looks: providers of results, the fetching of pages, and the ranking of passages."""
