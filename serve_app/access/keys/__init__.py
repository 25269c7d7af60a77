"""API keys: their file, the callers that present them, and the commands that edit the file.

file          the file of keys, in either of its forms
entry         the fields of one name in the YAML form
strict_yaml   YAML without types, anchors and repeated names
callers       the table of callers by the hash of their key
watch         the keys in force, read again when the file changes
revoked       keys that are revoked ahead of the file
edits         edits of the file as text
insertion     one more hash in the text of an entry
replacement   the file, replaced in one step under a lock
commands      `python -m serve_app keys`
"""
