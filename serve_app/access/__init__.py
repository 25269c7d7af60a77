"""Who may ask, and how much.

authenticator   who a request is from, by the credentials that it presents
policies        what a key or a group may do
caller          the caller of one request, with the policy in force
callers         the table of callers by the hash of their key
key_file        the file of keys, in either of its forms
key_entry       the fields of one name in the YAML form
strict_yaml     YAML without types, anchors and repeated names
key_watch       the keys in force, read again when the file changes
tokens          JSON Web Tokens
jwks            the public keys that verify tokens
repeater        a thread that repeats one step
regular_file    reads a small regular file and nothing else
key_edits       edits of the file as text
commands        `python -m serve_app keys`
"""
