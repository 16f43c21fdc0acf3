"""
Requests checked against the schemas of the API's documents.

`catalog` chooses the schema, `RequestSchema` checks a request, `explain` describes
what is wrong. The rules themselves are in the schema files.
"""
