"""
One request, held against what its API document says.

`catalog` chooses the schema, `RequestSchema` asks it, `explain` puts what is wrong
into words. The rules themselves are in the schema files.
"""
