"""The Centrifuge client protocol in JSON, server side, bidirectional. Sans-I/O: no clock (moments are given), no socket.

`session` is the state machine, `commands` is what comes in and what is to be done about it, `replies` are the lines that
go out, `codes` the errors and disconnects. Sections (§) here and beside are those of docs/protocols/centrifuge-json.md.
"""
