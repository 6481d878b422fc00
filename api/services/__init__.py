"""The three services of the API, one room each."""
