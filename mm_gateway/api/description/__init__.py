"""What `/schema` says of the API, built from the routes and the types of the wire."""
